"""Reads a study for its report: which trials have values, what they cost, and short names for a person."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from medgan.report.importances import Importances, weigh
from medgan.search.budget import DEVICE, DEVICE_S
from medgan.search.objectives import Goal, goals_of
from medgan.search.study import Study, best_trial, first_attempt_of, front, is_feasible, is_finished, state_of

_PATH = re.compile(
    r"""(?P<quote>['"])(?:[\w+]+:/)?[~.]{0,2}/.*?(?P=quote)|(?<![\w/<])(?:[\w+]+:/|[~.]{1,2})?/[^\s'",;:()<>]+"""
)
REASON_LENGTH = 400
HOUR_S = 3600.0
ORDER = ("complete", "pruned", "failed", "repeated attempts", "running", "waiting")
"""Gives the order of states and costs; each kind of failure has the place of "failed"."""
FEW = 4
"""Gives the smallest number of trials for which importances are meaningful."""


@dataclass(frozen=True)
class Scored:
    """Holds a complete or pruned trial and its value of every goal."""

    trial: FrozenTrial
    values: list[float]

    @property
    def first_attempt(self) -> int:
        """Returns the number of the trial's first attempt, by which a person knows the trial."""
        return first_attempt_of(self.trial)

    @property
    def is_feasible(self) -> bool:
        """Says whether the trial keeps every constraint."""
        return is_feasible(self.trial)

    @property
    def kind(self) -> str:
        """Returns "complete", "pruned" or "infeasible"."""
        return state_of(self.trial) if self.is_feasible else "infeasible"


@dataclass(frozen=True)
class Overview:
    """Holds everything a report needs, read once.

    Attributes:
        trials: every attempt, by number.
        scored: finished trials with values, by first attempt.
        front: the Pareto front, by first attempt.
        settings: every setting that moves in some trial -> its distribution.
    """

    goals: tuple[Goal, ...]
    trials: list[FrozenTrial]
    scored: list[Scored]
    best: Scored | None
    front: list[FrozenTrial]
    settings: dict[str, BaseDistribution]

    @classmethod
    def of(cls, study: Study) -> Self:
        """Returns the overview of a study as it is now."""
        goals, trials, found = goals_of(study), study.get_trials(deepcopy=False), best_trial(study)
        scored = [Scored(trial, values) for trial in trials if (values := values_of(trial, goals[0]))]
        settings: dict[str, BaseDistribution] = {}
        for trial in trials:
            settings |= trial.distributions
        return cls(
            goals=goals,
            trials=trials,
            scored=sorted(scored, key=lambda one: one.first_attempt),
            best=next((one for one in scored if found and one.trial.number == found[0].number), None),
            front=sorted(front(study), key=first_attempt_of),
            settings=settings,
        )

    @property
    def limits(self) -> list[str]:
        """Returns the constraints, such as `val/mae_hu <= 150`."""
        return sorted({name for trial in self.trials for name in trial.constraints})

    @property
    def eligible(self) -> set[int]:
        """Returns the numbers of the trials that can be best: feasible, and complete if there are several goals."""
        several = len(self.goals) > 1
        return {
            one.trial.number
            for one in self.scored
            if one.is_feasible and not (several and one.trial.state != TrialState.COMPLETE)
        }

    @property
    def ranked(self) -> list[Scored]:
        """Returns the best trial, then the feasible and then the infeasible ones, each by the first goal."""
        sign = -1 if self.goals[0].mode == "max" else 1

        def place(one: Scored) -> tuple[bool, bool, float, int]:
            return one is not self.best, not one.is_feasible, sign * one.values[0], one.first_attempt

        return sorted(self.scored, key=place)

    @cached_property
    def importances(self) -> tuple[Importances, ...] | str:
        """Returns the importances of the settings for each goal, or the reason why there are none."""
        if len(self.scored) < FEW:
            return f"Importances need at least {FEW} finished trials with a value; there are {len(self.scored)}."
        if len(self.settings) < 2:
            return "Only one setting moves: there is nothing to weigh it against."
        trials, found = [one.trial for one in self.scored], []
        for place, goal in enumerate(self.goals):
            values = [one.values[place] for one in self.scored]
            if len({*values}) == 1:
                return f"All trials have the same {goal.metric}: no setting makes a difference."
            found.append(weigh(trials, values, goal))
        return tuple(found)


def values_of(trial: FrozenTrial, first: Goal) -> list[float] | None:
    """Returns the final values of a complete or pruned trial; those of its best epoch if it was pruned without any."""
    if state_of(trial) not in ("complete", "pruned"):
        return None
    values = trial.values
    if values is None:
        better = max if first.mode == "max" else min
        rows = [row for row in epochs_of(trial).values() if all(map(math.isfinite, row))]
        values = better(rows, key=lambda row: row[0], default=None)
    return list(values) if values and all(map(math.isfinite, values)) else None


def epochs_of(trial: FrozenTrial) -> dict[int, list[float]]:
    """Returns epoch -> value of each goal, in order; of the first goal only if no more was recorded."""
    kept = trial.user_attrs.get("epochs") or {epoch: [value] for epoch, value in trial.intermediate_values.items()}
    return {int(epoch): kept[epoch] for epoch in sorted(kept, key=int)}


def short_names(settings: Iterable[str]) -> dict[str, str]:
    """Returns each dotted path -> its last parts, as few as distinguish it from the other paths."""
    paths = list(settings)

    def end(path: str, parts: int) -> str:
        return ".".join(path.split(".")[-parts:])

    names = {}
    for path in paths:
        ends = [end(path, parts) for parts in range(1, path.count(".") + 1)]
        names[path] = next((one for one in ends if sum(f".{other}".endswith(f".{one}") for other in paths) == 1), path)
    return names


def violations(trial: FrozenTrial) -> dict[str, float]:
    """Returns the constraints that a trial misses -> by how much."""
    return {name: excess for name, excess in trial.constraints.items() if excess > 0}


def cost_group(trial: FrozenTrial) -> str:
    """Returns the group to which a trial's cost is added."""
    state = state_of(trial)
    if state in ("complete", "pruned", "running", "waiting"):
        return state
    return "failed" if is_finished(trial) else "repeated attempts"


def in_order(state: str) -> int:
    """Returns the place of a state or cost group in `ORDER`."""
    return ORDER.index(state if state in ORDER else "failed")


def cost_unit(trial: FrozenTrial) -> str:
    """Returns the unit in which a trial's cost is counted."""
    return "GPU-hours" if trial.user_attrs.get(DEVICE) == "gpu" else "core-hours"


def cost_hours(trial: FrozenTrial) -> float:
    """Returns the number of devices times the hours that this attempt held them."""
    return float(trial.user_attrs.get(DEVICE_S, 0.0)) / HOUR_S


def costs(trials: Iterable[FrozenTrial]) -> dict[str, dict[str, float]]:
    """Returns unit -> group of `cost_group` -> hours; groups without cost are left out."""
    found: dict[str, dict[str, float]] = {}
    for trial in sorted(trials, key=lambda one: in_order(cost_group(one))):
        if hours := cost_hours(trial):
            group = found.setdefault(cost_unit(trial), {})
            group[cost_group(trial)] = group.get(cost_group(trial), 0.0) + hours
    return found


def reason_of(trial: FrozenTrial) -> str:
    """Returns why a trial ended as it did; paths are removed, as the places of a user's files are private."""
    reason = _PATH.sub("[path]", str(trial.user_attrs.get("reason", "")))
    return reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 4] + " ..."


def number_text(value: Any) -> str:
    """Returns a setting or value as text with four digits; a dash if it is missing or not finite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
    return "-" if value is None else str(value)


def measured(trial: FrozenTrial) -> dict[str, float]:
    """Returns the validation metrics of the trial's best epoch."""
    kept = trial.user_attrs.get("metrics") or {}
    return {name: value for name, value in kept.items() if name.startswith("val/") and math.isfinite(value)}
