"""Defines a search space: preset, fixed settings, searched settings, goals, and how to search."""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from optuna.trial import Trial
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from medgan.config import Config, flatten, with_values
from medgan.errors import InputError
from medgan.presets.by_name import PRESETS, configured
from medgan.search.objectives import Constraint, Goal, Mode, goal_named
from medgan.search.parameters import Condition, Move, decoded, encoded

METHOD = "method"
"""The setting, in spaces only, that selects a published method or a method that the space defines."""
SELECT = "metrics.select"
"""The setting whose metric decides which epoch's generator is kept; in a search it is the first goal."""
FIXED = (
    "data.size", "extractor.network", "extractor.weights", "metrics.lpips", "metrics.lpips_weights", SELECT,
    "train.batch_size", "train.epochs", "train.minutes",
)  # fmt: skip
"""Settings that cannot be searched: the data set, the available weights and early stopping depend on them."""


class Part(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Holds a section of a space; unknown names are errors."""


class Scheduler(Part):
    """Describes when a trial stops early, by its best epoch so far.

    asha: not among the best 1/reduction_factor at a rung (asynchronous successive halving, Li et al., 2020);
    median: below the median of the others at the same epoch (Golovin et al., 2017); none: never.
    """

    kind: Literal["asha", "median", "none"] = "asha"
    grace_epochs: PositiveInt = Field(2, description="no trial is stopped before")
    reduction_factor: int = Field(3, ge=2, description="of asha")


class Budget(Part):
    """Limits what a study may take in total, over all attempts and all starts of the command; None: no limit."""

    gpu_hours: PositiveFloat | None = Field(None, description="GPUs x hours; without GPUs, cores x hours")
    hours: PositiveFloat | None = Field(None, description="hours of the search on the wall")


class Checkpoints(Part):
    """Describes which generators of finished trials are kept: the best, and the Pareto front of several goals."""

    keep: PositiveInt = 3
    max_gb: PositiveFloat | None = Field(None, description="of the study's folder; the worst kept ones go first")


class Method(Part):
    """Defines a method of the space: a preset, and the settings that differ from it."""

    preset: str
    scale: Literal["published", "quick"] = "published"
    set: dict[str, Any] = {}

    @field_validator("preset")
    @classmethod
    def is_a_preset(cls, name: str) -> str:
        """Raises InputError if the preset is unknown."""
        return known_preset(name)

    @field_validator("set")
    @classmethod
    def is_its_own(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for a setting that all trials of a study must share."""
        if shared := [path for path in FIXED if path in values]:
            raise InputError("E-SPACE-05", shared=shared[0])
        return values


class Space(Part):
    """Holds a search space as its file defines it."""

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
        """Raises InputError if the preset is unknown."""
        return known_preset(name)

    @field_validator("constraints")
    @classmethod
    def are_constraints(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Raises InputError if a constraint cannot be read."""
        for text in texts:
            Constraint.read(text)
        return texts

    @model_validator(mode="after")
    def has_goals(self) -> Self:
        """Raises InputError unless there is one metric, or objectives of which the first is a validation metric."""
        if self.objectives and (self.model_fields_set & {"metric", "mode"}):
            raise InputError("E-SPACE-06", metric=self.metric, objectives=", ".join(self.objectives))
        if not self.goals[0].metric.startswith("val/"):
            raise InputError("E-SPACE-07", metric=self.goals[0].metric)
        return self

    @model_validator(mode="after")
    def can_be_searched(self) -> Self:
        """Raises InputError if a searched method is unknown, or a grid has a float range or a condition."""
        if METHOD in self.search:
            for name in self.names_of_methods:
                if name not in self.methods:
                    known_preset(name)
        if self.sampler == "grid":
            for setting, move in self.search.items():
                if move.linear or move.log or move.when:
                    kind = "float" if move.linear else "log" if move.log else "when"
                    raise InputError("E-SPACE-08", setting=setting, kind=kind)
        return self

    @property
    def names_of_methods(self) -> tuple[Any, ...]:
        """Returns the names of the searched methods; empty if `method` is not searched."""
        return self.search[METHOD].choice or () if METHOD in self.search else ()

    @property
    def named(self) -> str:
        """Returns the preset, or all searched methods, as text for the user."""
        return ", ".join(self.names_of_methods) or self.preset

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Returns the goals; the first one decides early stopping and which epoch's generator is kept."""
        wanted: Mapping[str, Mode | None] = self.objectives or {self.metric: self.mode}
        return tuple(goal_named(metric, mode) for metric, mode in wanted.items())

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """Returns the parsed constraints."""
        return tuple(Constraint.read(text) for text in self.constraints)

    def base(self, overrides: Mapping[str, Any]) -> Config:
        """Returns the preset with the fixed settings of the space, then with the `--set` options of the user.

        Raises:
            InputError: a setting is invalid, or another metric than the first goal selects the generator to keep.
        """
        goal = self.goals[0].metric
        settings = {SELECT: goal, **self.set, **overrides}
        if settings[SELECT] != goal:
            raise InputError("E-SPACE-19", setting=SELECT, value=settings[SELECT], goal=goal)
        return with_values(PRESETS[self.preset](), settings)

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """Returns the space with overrides in every searched method, as `base` applies them to the preset."""
        own = {path: value for path, value in overrides.items() if path not in FIXED}
        named = {name: self.methods.get(name) or Method(preset=name) for name in self.names_of_methods}
        changed = {name: one.model_copy(update={"set": {**one.set, **own}}) for name, one in named.items()}
        return self.model_copy(update={"methods": {**self.methods, **changed}})

    def with_method(self, base: Config, name: str) -> Config:
        """Returns the configuration of a method; settings that all trials of a study share come from `base`."""
        method = self.methods.get(name) or Method(preset=name)
        shared = {path: value for path, value in flatten(base).items() if path in FIXED}
        return configured(method.preset, {**self.set, **method.set, **shared}, small=method.scale == "quick")

    def pick(self, base: Config, choose: Callable[[str, Move], Any]) -> Config:
        """Returns the configuration with chosen values; a setting whose condition does not hold keeps its value."""
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
        """Returns what `pick` returns for each searched method, or one configuration if `method` is not searched."""
        return [
            self.pick(base, lambda setting, move, name=name: name if setting == METHOD else choose(move))  # type: ignore[misc]
            for name in self.names_of_methods or ("",)
        ]

    def corners(self, base: Config) -> list[Config]:
        """Returns, for each method, the configuration with all searched settings at their largest values."""
        return self.every_method(base, lambda move: move.largest)

    def grid(self) -> list[dict[str, Any]]:
        """Returns all combinations of the searched settings, in the database's form; the first varies slowest."""
        values = [[encoded(value) for value in move.some] for move in self.search.values()]
        return [dict(zip(self.search, combination, strict=True)) for combination in itertools.product(*values)]

    def beginnings(self, base: Config) -> list[dict[str, Any]]:
        """Returns the trials that come before sampled ones, in the database's form: the grid's points, or the preset.

        The preset's trial has the values of preset and `set` if they are in the ranges; other settings are sampled.
        """
        if self.sampler == "grid":
            return self.grid()
        values = {METHOD: self.preset, **flatten(base)}
        return [{name: encoded(values[name]) for name, move in self.search.items() if move.has(values[name])}]

    def draw(self, trial: Trial, base: Config) -> Config:
        """Samples the configuration of a trial."""
        return self.pick(base, lambda setting, move: move.suggest(trial, setting))

    def configured(self, params: Mapping[str, Any], base: Config) -> Config:
        """Returns the configuration of a trial, from its parameters in the database's form."""
        values = {setting: decoded(value) for setting, value in params.items()}
        if METHOD in values:
            base = self.with_method(base, values.pop(METHOD))
        return with_values(base, values)

    def needed_for(self, setting: str, base: Config) -> dict[str, Any]:
        """Returns values of other searched settings for which the condition of this one holds.

        Raises:
            InputError: the condition names a setting that is neither fixed nor searched above it, or never holds.
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
        """Returns the SHA-256 of the space without trials, budget and checkpoints, which may change during a study."""
        content = self.model_dump(mode="json", exclude={"trials", "budget", "checkpoints"})
        if self.sampler == "grid":
            content["search"].pop("train.seed", None)  # seeds may be added to a study
        if not self.methods:
            del content["methods"]  # the digest of studies older than this field stays
        content |= {"overrides": dict(overrides)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def known_preset(name: str) -> str:
    """Returns the name if it is a preset; raises InputError otherwise."""
    if name not in PRESETS:
        raise InputError("E-SPACE-12", presets=", ".join(PRESETS), name=name)
    return name
