"""What a search wants: one validation metric or several, and limits that a usable trial keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna

from medgan.errors import InputError
from medgan.metrics.validation_metrics import direction

Mode = Literal["max", "min"]
GOALS = "goals"
"""Attribute of a study: its goals as JSON."""
COSTS = ("cost/gpu_hours", "cost/parameters", "time/epoch_s")
"""What a trial's epochs say beside validation metrics; less is better. Hours: GPUs, else cores, x hours."""
Row = Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """A metric of an epoch, and which way is better."""

    metric: str
    mode: Mode

    def score(self, row: Row) -> float:
        """Higher is better, whichever way the metric goes."""
        return row[self.metric] if self.mode == "max" else -row[self.metric]


@dataclass(frozen=True)
class Constraint:
    """A limit on the best epoch's metric, such as `val/mae_hu <= 150`."""

    metric: str
    sign: Literal["<=", ">="]
    limit: float

    @classmethod
    def read(cls, text: str) -> Constraint:
        """The constraint a text states; raises ValueError where it states none."""
        found = re.fullmatch(r"\s*(\S+)\s*(<=|>=)\s*([-+.\deE]+)\s*", text)
        if not found:
            raise InputError("E-GOAL-01", text=text)
        metric, sign, limit = found.groups()
        refuse_no_metric(metric)
        return cls(metric, "<=" if sign == "<=" else ">=", float(limit))

    def excess(self, row: Row) -> float:
        """How far beyond the limit, as Optuna wants it: 0 or less where it is kept."""
        return row[self.metric] - self.limit if self.sign == "<=" else self.limit - row[self.metric]

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.limit:g}"


def goal_named(metric: str, mode: Mode | None = None) -> Goal:
    """The goal of that metric; the mode, if given, has to be the way that is better.

    Raises:
        ValueError: no metric of an epoch is called so, it is no goal, or the mode is the worse way.
    """
    refuse_no_metric(metric)
    if metric.startswith("val/bias"):
        raise InputError("E-GOAL-02", metric=metric)
    better: Mode = "min" if metric in COSTS or direction(metric) == "min" else "max"
    if mode not in (None, better):
        raise InputError("E-GOAL-03", metric=metric, better="larger" if better == "max" else "smaller", mode=mode)
    return Goal(metric, better)


def refuse_no_metric(metric: str) -> None:
    """Refuses what no epoch reports; raises ValueError."""
    if metric.startswith("loss/"):
        raise InputError("E-GOAL-04", metric=metric)
    if metric in COSTS:
        return
    if not metric.startswith("val/"):
        raise InputError("E-GOAL-05", costs=", ".join(COSTS), metric=metric)
    direction(metric)


def keep_goals(study: optuna.Study, goals: Sequence[Goal]) -> None:
    """Writes them into the study."""
    study.set_user_attr(GOALS, json.dumps([[goal.metric, goal.mode] for goal in goals]))


def goals_of(study: optuna.Study) -> tuple[Goal, ...]:
    """What a study was made for; the first decides early stopping and which epoch's generator is kept."""
    return tuple(Goal(metric, mode) for metric, mode in json.loads(study.user_attrs[GOALS]))
