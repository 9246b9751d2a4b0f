"""A search space: a preset, what is fixed, what moves, what is wanted, and how the search goes about it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from optuna.trial import Trial
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from medgan.config import Config, flatten, with_values
from medgan.errors import InputError
from medgan.presets.by_name import PRESETS, configured
from medgan.search.objectives import Constraint, Goal, Mode, goal_named
from medgan.search.parameters import Condition, Move, decoded, encoded

METHOD = "method"
"""A setting like any other, but for a space alone: which published method, or method of the space's own, it is."""
FIXED = (
    "data.size", "extractor.network", "extractor.weights", "metrics.lpips", "metrics.lpips_weights", "metrics.select",
    "train.batch_size", "train.epochs", "train.minutes",
)  # fmt: skip
"""Settings that cannot move: the data set, the weights at hand and the early stopping hang on them."""


class Part(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A section of a space; unknown names are refused."""


class Scheduler(Part):
    """When a trial is stopped early, judged by its best epoch so far.

    asha: asynchronous successive halving (Li et al., 2020), behind the best 1/reduction_factor at a rung;
    median: behind the median of the others at the same epoch (Golovin et al., 2017); none: never.
    """

    kind: Literal["asha", "median", "none"] = "asha"
    grace_epochs: PositiveInt = Field(2, description="no trial is stopped before")
    reduction_factor: int = Field(3, ge=2, description="of asha")


class Budget(Part):
    """What a study may take in all, over every attempt and every start of the command; none: no limit."""

    gpu_hours: PositiveFloat | None = Field(None, description="GPUs x hours; without GPUs, cores x hours")
    hours: PositiveFloat | None = Field(None, description="hours of the search on the wall")


class Checkpoints(Part):
    """Which generators of finished trials are kept: the best, and the Pareto front of several goals."""

    keep: PositiveInt = 3
    max_gb: PositiveFloat | None = Field(None, description="of the study's folder; the worst kept ones go first")


class Method(Part):
    """What `method` may be, by a name of its own: a preset and what is changed in it."""

    preset: str
    scale: Literal["published", "quick"] = "published"
    set: dict[str, Any] = {}

    @field_validator("preset")
    @classmethod
    def is_a_preset(cls, name: str) -> str:
        """One of the published methods."""
        return known_preset(name)

    @field_validator("set")
    @classmethod
    def is_its_own(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Nothing that is one for all trials of a study."""
        if shared := [path for path in FIXED if path in values]:
            raise InputError("E-SPACE-05", shared=shared[0])
        return values


class Space(Part):
    """A search space as written."""

    preset: str = "medgan"
    set: dict[str, Any] = {}
    methods: dict[str, Method] = {}
    search: dict[str, Move] = Field(min_length=1)
    metric: str = "val/ssim"
    mode: Mode | None = None
    objectives: dict[str, Mode] | None = Field(None, min_length=2, description="several, instead of metric and mode")
    constraints: tuple[str, ...] = ()
    sampler: Literal["tpe", "gp", "nsga2", "random", "grid"] = "tpe"
    scheduler: Scheduler = Scheduler()
    trials: PositiveInt = 20
    budget: Budget = Budget()
    checkpoints: Checkpoints = Checkpoints()

    @field_validator("preset")
    @classmethod
    def is_a_preset(cls, name: str) -> str:
        """One of the published methods."""
        return known_preset(name)

    @field_validator("constraints")
    @classmethod
    def are_constraints(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Each can be read."""
        for text in texts:
            Constraint.read(text)
        return texts

    @model_validator(mode="after")
    def has_goals(self) -> Space:
        """One metric, or several objectives, the first of which is measured on the validation patients."""
        if self.objectives and (self.model_fields_set & {"metric", "mode"}):
            raise InputError("E-SPACE-06")
        if not self.goals[0].metric.startswith("val/"):
            raise InputError("E-SPACE-07", metric=self.goals[0].metric)
        return self

    @model_validator(mode="after")
    def can_be_searched(self) -> Space:
        """Methods that move are known, and a grid has corners."""
        if METHOD in self.search:
            for name in self.names_of_methods:
                if name not in self.methods:
                    known_preset(name)
        if self.sampler == "grid":
            for setting, move in self.search.items():
                if move.linear or move.log or move.when:
                    raise InputError("E-SPACE-08", setting=setting)
        return self

    @property
    def names_of_methods(self) -> tuple[Any, ...]:
        """What `method` may be; none where it does not move."""
        return self.search[METHOD].choice or () if METHOD in self.search else ()

    @property
    def named(self) -> str:
        """The preset, or every method that moves, for a person."""
        return ", ".join(self.names_of_methods) or self.preset

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What is wanted; the first decides early stopping and which epoch's generator is kept."""
        wanted: Mapping[str, Mode | None] = self.objectives or {self.metric: self.mode}
        return tuple(goal_named(metric, mode) for metric, mode in wanted.items())

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints, read."""
        return tuple(Constraint.read(text) for text in self.constraints)

    def base(self, overrides: Mapping[str, Any]) -> Config:
        """The preset with the space's fixed settings and the user's `--set` on top."""
        selected = {"metrics.select": self.goals[0].metric}
        return with_values(PRESETS[self.preset](), {**selected, **self.set, **overrides})

    def with_overrides(self, overrides: Mapping[str, Any]) -> Space:
        """The space with settings on top of every method that moves, as `base` puts them on top of its preset."""
        own = {path: value for path, value in overrides.items() if path not in FIXED}
        named = {name: self.methods.get(name) or Method(preset=name) for name in self.names_of_methods}
        changed = {name: one.model_copy(update={"set": {**one.set, **own}}) for name, one in named.items()}
        return self.model_copy(update={"methods": {**self.methods, **changed}})

    def with_method(self, base: Config, name: str) -> Config:
        """A method in place of the space's preset; what is one for all trials of a study stays as it is in `base`."""
        method = self.methods.get(name) or Method(preset=name)
        shared = {path: value for path, value in flatten(base).items() if path in FIXED}
        return configured(method.preset, {**self.set, **method.set, **shared}, small=method.scale == "quick")

    def pick(self, base: Config, choose: Callable[[str, Move], Any]) -> Config:
        """The configuration with every moving setting as chosen; those whose condition does not hold are not moved."""
        chosen: dict[str, Any] = {}
        if METHOD in self.search:
            chosen[METHOD] = choose(METHOD, self.search[METHOD])
            base = self.with_method(base, chosen[METHOD])
        for setting, move in self.search.items():
            holds = move.when is None or Condition.read(move.when).holds_in({**flatten(base), **chosen})
            if setting != METHOD and holds:
                chosen[setting] = choose(setting, move)
        return with_values(base, {setting: value for setting, value in chosen.items() if setting != METHOD})

    def every_method(self, base: Config, choose: Callable[[Move], Any]) -> list[Config]:
        """`pick` for each method that `method` may be, one where it does not move."""
        return [
            self.pick(base, lambda setting, move, name=name: name if setting == METHOD else choose(move))  # type: ignore[misc]
            for name in self.names_of_methods or ("",)
        ]

    def corners(self, base: Config) -> list[Config]:
        """Every moving setting at its largest, for each method: what the largest trial of each needs."""
        return self.every_method(base, lambda move: move.largest)

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of the moving settings, as the study database holds them; the first moves slowest."""
        values = [[encoded(value) for value in move.some] for move in self.search.values()]
        return [dict(zip(self.search, combination, strict=True)) for combination in itertools.product(*values)]

    def beginnings(self, base: Config) -> list[dict[str, Any]]:
        """What is tried before anything is drawn, as the study database holds it: a grid's points, or the preset.

        The latter is every moving setting at the value that preset and `set` give it, where its range has that value;
        the others are drawn.
        """
        if self.sampler == "grid":
            return self.grid()
        values = {METHOD: self.preset, **flatten(base)}
        return [{name: encoded(values[name]) for name, move in self.search.items() if move.has(values[name])}]

    def draw(self, trial: Trial, base: Config) -> Config:
        """The trial's configuration."""
        return self.pick(base, lambda setting, move: move.suggest(trial, setting))

    def configured(self, params: Mapping[str, Any], base: Config) -> Config:
        """The configuration of a trial, from its parameters as the study database holds them."""
        values = {setting: decoded(value) for setting, value in params.items()}
        if METHOD in values:
            base = self.with_method(base, values.pop(METHOD))
        return with_values(base, values)

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
            raise InputError("E-SPACE-09", setting=setting, when=when)
        else:
            values = (flatten(base)[condition.setting],)
        try:
            fitting = [value for value in values if condition.holds(value, condition.value)]
        except TypeError:
            raise InputError("E-SPACE-10", setting=setting, when=when, values=values[0]) from None
        if fitting:
            moves = condition.setting in above
            return {**self.needed_for(condition.setting, base), condition.setting: fitting[0]} if moves else {}
        raise InputError("E-SPACE-11", setting=setting, when=when, values=list(values))

    def digest(self, overrides: Mapping[str, Any]) -> str:
        """SHA-256 of what is searched, without how long and what is kept: those may change as a study goes on."""
        content = self.model_dump(mode="json", exclude={"trials", "budget", "checkpoints"})
        if self.sampler == "grid":
            content["search"].pop("train.seed", None)  # more seeds are more of the same
        if not self.methods:
            del content["methods"]  # younger than the first studies
        content |= {"overrides": dict(overrides)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def known_preset(name: str) -> str:
    """The name, if it is a published method's; raises ValueError."""
    if name not in PRESETS:
        raise InputError("E-SPACE-12", presets=", ".join(PRESETS), name=name)
    return name
