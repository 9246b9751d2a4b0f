"""The budget of a study: what its trials took, kept in its database, and when no more may begin."""

from __future__ import annotations

import time
from collections.abc import Callable

import optuna
from optuna.trial import Trial, TrialState

from medgan.distributed.worker_group import Resources
from medgan.errors import InputError
from medgan.search.space import Budget
from medgan.units import duration

DEVICE_S, DEVICE, ELAPSED_S = "device_s", "device", "elapsed_s"
"""Attributes: of a trial (one attempt), devices x seconds and which; of a study, seconds of searching on the wall."""


class Meter:
    """Measures what every attempt takes, failed ones included; says when the budget is used up.

    Args:
        study: where it is kept.
        budget: the limits.
        resources: of each trial.
        clock: seconds, for tests.
    """

    def __init__(
        self, study: optuna.Study, budget: Budget, resources: Resources, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.study, self.budget, self.resources, self.clock = study, budget, resources, clock
        self.began: dict[int, float] = {}
        self.spent = used_device_s(study, resources.device)
        self.elapsed_before, self.start = float(study.user_attrs.get(ELAPSED_S, 0.0)), clock()

    def begin(self, trial: Trial) -> None:
        """An attempt holds its devices from now on."""
        self.began[trial.number] = self.clock()
        trial.set_user_attr(DEVICE, self.resources.device)

    def note(self, trial: Trial) -> None:
        """Keeps what an attempt took until now, in case this process is killed."""
        trial.set_user_attr(DEVICE_S, self._device_s(trial.number))
        self.study.set_user_attr(ELAPSED_S, self._elapsed_s())

    def end(self, trial: Trial) -> None:
        """The attempt is over; to be called before its state is told."""
        self.note(trial)
        self.spent += self._device_s(trial.number)
        del self.began[trial.number]

    def used_up(self) -> str:
        """Which limit is reached, for a person; "" while none is."""
        spent_hours = (self.spent + sum(map(self._device_s, self.began))) / 3600
        hours = self._elapsed_s() / 3600
        if self.budget.gpu_hours is not None and spent_hours >= self.budget.gpu_hours:
            return f"{spent_hours:.3g} of {self.budget.gpu_hours:g} {self.resources.unit} used"
        if self.budget.hours is not None and hours >= self.budget.hours:
            return f"{duration(3600 * hours)} of {duration(3600 * self.budget.hours)} used"
        return ""

    def left(self) -> Budget:
        """What may still be taken, 0 where nothing is left."""
        limits, spent = self.budget, {"gpu_hours": self.spent / 3600, "hours": self._elapsed_s() / 3600}
        left = {name: max(limit - spent[name], 0.0) for name, limit in limits if limit is not None}
        return limits.model_copy(update=left)

    def _device_s(self, number: int) -> float:
        return self.resources.devices * (self.clock() - self.began[number])

    def _elapsed_s(self) -> float:
        return self.elapsed_before + self.clock() - self.start


def used_device_s(study: optuna.Study, device: str) -> float:
    """Seconds of all attempts that are over, on that kind of device: hours of a core are none of a GPU."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.RUNNING]
    return sum(trial.user_attrs.get(DEVICE_S, 0.0) for trial in trials if trial.user_attrs.get(DEVICE) == device)


def limited(budget: Budget, *, gpu_hours: float | None, hours: float | None) -> Budget:
    """The space's budget with what the command line says instead.

    Raises:
        InputError: a limit of 0 or less.
    """
    for option, value in (("--max-gpu-hours", gpu_hours), ("--max-hours", hours)):
        if value is not None and value <= 0:
            raise InputError("E-BUDGET-01", option=option, value=value)
    given = {"gpu_hours": gpu_hours, "hours": hours}
    return budget.model_copy(update={name: value for name, value in given.items() if value is not None})
