"""Search spaces: which settings move, how far; read from `search_spaces/*.yaml` or a file of one's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, Field, PositiveInt, ValidationError, model_validator

import medgan
from medgan.config import Config, with_values
from medgan.errors import InputError
from medgan.presets.table import PRESETS

FIXED = ("data.size", "extractor.weights", "train.batch_size", "train.epochs")
"""Settings that cannot move: the data set, the weights at hand and the early stopping hang on them."""


class Move(BaseModel, frozen=True, extra="forbid"):
    """How one setting moves; exactly one of the four."""

    integer: tuple[int, int] | None = Field(None, alias="int")
    linear: tuple[float, float] | None = Field(None, alias="float")
    log: tuple[float, float] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def is_one_range(self) -> Move:
        """Exactly one kind, its ends in order."""
        kinds = [(kind, value) for kind, value in self if value is not None]
        if len(kinds) != 1:
            raise ValueError("expected exactly one of int, float, log, choice")
        kind, value = kinds[0]
        if kind != "choice" and value[0] >= value[1]:
            raise ValueError(f"{kind}: the low end must be below the high end; got {list(value)}")
        if kind == "log" and value[0] <= 0:
            raise ValueError(f"log: the low end must be above 0; got {value[0]}")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to try when the space is read: both ends, or every choice."""
        return self.integer or self.linear or self.log or self.choice or ()

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        if self.integer:
            return IntDistribution(*self.integer)
        if self.linear:
            return FloatDistribution(*self.linear)
        if self.log:
            return FloatDistribution(*self.log, log=True)
        return CategoricalDistribution(self.choice or ())


class Asha(BaseModel, frozen=True, extra="forbid"):
    """Asynchronous successive halving (Li et al., 2020): stop a trial that is behind the best 1/reduction_factor."""

    grace_epochs: PositiveInt = Field(2, description="no trial is stopped before")
    reduction_factor: int = Field(3, ge=2)


class Space(BaseModel, frozen=True, extra="forbid"):
    """A search space as written: a preset, fixed settings, moving settings, and how many trials."""

    preset: str = "medgan"
    set: dict[str, Any] = {}
    search: dict[str, Move] = Field(min_length=1)
    scheduler: Asha = Asha()
    trials: PositiveInt = 20

    def base(self, overrides: Mapping[str, Any]) -> Config:
        """The preset with the space's fixed settings and the user's `--set` on top."""
        return with_values(PRESETS[self.preset](), {**self.set, **overrides})

    def corner(self, base: Config) -> Config:
        """The configuration with every moving setting at its last value: what the largest trial needs."""
        return with_values(base, {path: move.ends[-1] for path, move in self.search.items()})

    def distributions(self) -> dict[str, BaseDistribution]:
        """The moving settings for Optuna, by dotted path."""
        return {path: move.distribution() for path, move in self.search.items()}

    def digest(self, overrides: Mapping[str, Any]) -> str:
        """SHA-256 of what is searched, the number of trials left out: more trials extend the same study."""
        content = self.model_dump(mode="json", exclude={"trials"}) | {"overrides": dict(overrides)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def folders() -> list[Path]:
    """Where named spaces lie: inside the installed package, or beside it in a checkout."""
    package = Path(medgan.__file__).parent
    return [folder for folder in (package / "search_spaces", package.parent / "search_spaces") if folder.is_dir()]


def read_space(name: str, overrides: Mapping[str, Any]) -> Space:
    """The space of that name, or in that file; both ends of every range are tried against preset and overrides.

    Raises:
        InputError: no such space, unreadable, or a value its setting refuses.
    """
    path = _find(name)
    try:
        space = Space.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"search space {path}: not readable as YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"search space {path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    if space.preset not in PRESETS:
        raise InputError(f"search space {path}: preset: expected one of {', '.join(PRESETS)}; got {space.preset!r}")
    base = space.base(overrides)
    for setting, move in space.search.items():
        if setting in overrides:
            raise InputError(f"--set {setting}: the search space {path} moves it; take it out there, or do not set it")
        if setting in FIXED:
            raise InputError(f"search space {path}: {setting} is one for all trials of a study; put it under set")
        for end in move.ends:
            _try(base, setting, end, path)
    return space


def _try(base: Config, setting: str, value: Any, path: Path) -> None:
    try:
        with_values(base, {setting: value})
    except InputError as error:
        raise InputError(f"search space {path}: {error}") from None


def _find(name: str) -> Path:
    named = {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}
    if name in named:
        return named[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"--space: expected a file or one of {', '.join(sorted(named))}; got {name!r}")
    return path
