"""Defines the goals of a search (one validation metric or several), and the limits that a usable trial keeps."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import optuna

from medgan.errors import InputError
from medgan.metrics.validation_metrics import comparable, direction

Mode = Literal["max", "min"]
GOALS = "goals"
"""The attribute of a study that holds its goals as JSON."""
COSTS = ("cost/gpu_hours", "cost/parameters", "time/epoch_s")
"""Costs that an epoch reports beside validation metrics; less is better. Hours are GPUs x hours, else cores x hours."""
Row = Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """Holds a metric of an epoch, and whether more or less of it is better."""

    metric: str
    mode: Mode

    def score(self, row: Row) -> float:
        """Returns a score; higher is better for every metric."""
        return row[self.metric] if self.mode == "max" else -row[self.metric]


@dataclass(frozen=True)
class Constraint:
    """Describes a limit on a metric of the best epoch, such as `val/mae_hu <= 150`; on a bias see `comparable`."""

    metric: str
    sign: Literal["<=", ">="]
    limit: float

    @classmethod
    def read(cls, text: str) -> Self:
        """Parses the text of a constraint; raises InputError if it is invalid."""
        found = re.fullmatch(r"\s*(\S+)\s*(<=|>=)\s*([-+.\deE]+)\s*", text)
        if not found:
            raise InputError("E-GOAL-01", text=text)
        metric, sign, limit = found.groups()
        refuse_no_metric(metric)
        if metric.startswith("val/bias") and (sign == ">=" or float(limit) < 0):
            raise InputError("E-GOAL-06", text=text, metric=metric)
        return cls(metric, "<=" if sign == "<=" else ">=", float(limit))

    def excess(self, row: Row) -> float:
        """Returns how far a metric exceeds the limit, as Optuna expects: 0 or less if the limit is kept."""
        value = comparable(self.metric, row[self.metric])
        return value - self.limit if self.sign == "<=" else self.limit - value

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.limit:g}"


def goal_named(metric: str, mode: Mode | None = None) -> Goal:
    """Returns the goal of a metric; a given mode must be the better direction of that metric.

    Raises:
        InputError: no epoch reports the metric, it cannot be a goal, or the mode is the worse direction.
    """
    refuse_no_metric(metric)
    if metric.startswith("val/bias"):
        raise InputError("E-GOAL-02", metric=metric)
    better: Mode = "min" if metric in COSTS or direction(metric) == "min" else "max"
    if mode not in (None, better):
        raise InputError("E-GOAL-03", metric=metric, better="larger" if better == "max" else "smaller", mode=mode)
    return Goal(metric, better)


def refuse_no_metric(metric: str) -> None:
    """Raises InputError if no epoch reports the metric."""
    if metric.startswith("loss/"):
        raise InputError("E-GOAL-04", metric=metric)
    if metric in COSTS:
        return
    if not metric.startswith("val/"):
        raise InputError("E-GOAL-05", costs=", ".join(COSTS), metric=metric)
    direction(metric)


def keep_goals(study: optuna.Study, goals: Sequence[Goal]) -> None:
    """Writes the goals into the study."""
    study.set_user_attr(GOALS, json.dumps([[goal.metric, goal.mode] for goal in goals]))


def goals_of(study: optuna.Study) -> tuple[Goal, ...]:
    """Returns the goals of a study; the first one decides early stopping and which epoch's generator is kept."""
    return tuple(Goal(metric, mode) for metric, mode in json.loads(study.user_attrs[GOALS]))
