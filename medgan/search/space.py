"""Search spaces: which settings move, how far; read from `search_spaces/*.yaml` or a file of one's own."""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import Trial
from pydantic import BaseModel, Field, PositiveInt, ValidationError, model_validator

import medgan
from medgan.config import Config, flatten, parse_assignment, with_values
from medgan.errors import InputError
from medgan.presets.table import PRESETS

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
FIXED = ("data.size", "extractor.network", "extractor.weights", "train.batch_size", "train.epochs", "train.minutes")
"""Settings that cannot move: the data set, the weights at hand and the early stopping hang on them."""


@dataclass(frozen=True)
class Condition:
    """`SETTING OPERATOR VALUE`, such as `loss.lambda_style > 0`."""

    setting: str
    holds: Callable[[Any, Any], bool]
    value: Any

    @classmethod
    def read(cls, text: str) -> Condition:
        """The condition a text states; raises ValueError where it states none."""
        found = re.fullmatch(r"\s*(\S+)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*", text)
        if not found:
            raise ValueError(f"when: expected SETTING OPERATOR VALUE, such as loss.lambda_style > 0; got {text!r}")
        setting, sign, value = found.groups()
        return cls(setting, OPERATORS[sign], parse_assignment(f"{setting}={value}")[1])

    def holds_in(self, values: Mapping[str, Any]) -> bool:
        """Whether it holds where every setting has the given value, by dotted path."""
        return self.holds(values[self.setting], self.value)


class Move(BaseModel, frozen=True, extra="forbid"):
    """How one setting moves: exactly one of the four ranges, and when; elsewhere it keeps the base's value."""

    integer: tuple[int, int] | None = Field(None, alias="int")
    linear: tuple[float, float] | None = Field(None, alias="float")
    log: tuple[float, float] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    when: str | None = Field(None, description="condition on a setting that moves above this one")

    @model_validator(mode="after")
    def is_one_range(self) -> Move:
        """Exactly one kind, its ends in order; a condition that can be read."""
        if self.when is not None:
            Condition.read(self.when)
        kinds = [(kind, value) for kind, value in self if value is not None and kind != "when"]
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

    @property
    def some(self) -> tuple[Any, ...]:
        """Values to try a condition on: every integer or choice, both ends and the middle of a range."""
        if self.integer:
            return tuple(range(self.integer[0], self.integer[1] + 1))
        return self.choice or (*self.ends, sum(self.ends) / 2)

    @property
    def largest(self) -> Any:
        """The high end, the largest number, the list with the deepest block, or the last of other choices."""
        if all(isinstance(end, int | float) for end in self.ends):
            return max(self.ends)
        return max(self.ends, key=max) if all(isinstance(end, list) for end in self.ends) else self.ends[-1]

    def suggest(self, trial: Trial, setting: str) -> Any:
        """The trial's value; a choice of lists goes through the database as JSON."""
        if self.integer:
            return trial.suggest_int(setting, *self.integer)
        if self.linear:
            return trial.suggest_float(setting, *self.linear)
        if self.log:
            return trial.suggest_float(setting, *self.log, log=True)
        return decoded(trial.suggest_categorical(setting, [_encoded(one) for one in self.choice or ()]))


def _encoded(choice: Any) -> Any:
    return json.dumps(choice) if isinstance(choice, list) else choice


def decoded(choice: Any) -> Any:
    """A choice as the study database holds it -> as the configuration does."""
    return json.loads(choice) if isinstance(choice, str) and choice.startswith("[") else choice


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

    def pick(self, base: Config, choose: Callable[[str, Move], Any]) -> Config:
        """The configuration with every moving setting as chosen; those whose condition does not hold are not moved."""
        values: dict[str, Any] = {}
        for setting, move in self.search.items():
            if move.when is None or Condition.read(move.when).holds_in({**flatten(base), **values}):
                values[setting] = choose(setting, move)
        return with_values(base, values)

    def corner(self, base: Config) -> Config:
        """Every moving setting at its largest: what the largest trial needs."""
        return self.pick(base, lambda _, move: move.largest)

    def draw(self, trial: Trial, base: Config) -> Config:
        """The trial's configuration."""
        return self.pick(base, lambda setting, move: move.suggest(trial, setting))

    def configured(self, params: Mapping[str, Any], base: Config) -> Config:
        """The configuration of a trial, from its parameters as the study database holds them."""
        return with_values(base, {setting: decoded(value) for setting, value in params.items()})

    def needed_for(self, setting: str, base: Config) -> dict[str, Any]:
        """Values of other moving settings under which this one moves.

        Raises:
            InputError: its condition names no setting that is fixed or moves above it, or can never hold.
        """
        when = self.search[setting].when
        if when is None:
            return {}
        condition = Condition.read(when)
        above = list(self.search)[: list(self.search).index(setting)]
        if condition.setting in above:
            values = self.search[condition.setting].some
        elif condition.setting in self.search or condition.setting not in flatten(base):
            raise InputError(f"{setting}: when: expected a setting that moves above it, or is fixed; got {when!r}")
        else:
            values = (flatten(base)[condition.setting],)
        try:
            fitting = [value for value in values if condition.holds(value, condition.value)]
        except TypeError:
            raise InputError(f"{setting}: when: {when!r} compares {values[0]!r} with another kind of value") from None
        if fitting:
            moves = condition.setting in above
            return {**self.needed_for(condition.setting, base), condition.setting: fitting[0]} if moves else {}
        raise InputError(f"{setting}: when: {when!r} holds for none of {list(values)}")

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
        try:
            needed = space.needed_for(setting, base)
            for end in move.ends:
                with_values(base, {**needed, setting: end})
        except InputError as error:
            raise InputError(f"search space {path}: {error}") from None
    return space


def _find(name: str) -> Path:
    named = {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob("*.yaml"))}
    if name in named:
        return named[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"--space: expected a file or one of {', '.join(sorted(named))}; got {name!r}")
    return path
