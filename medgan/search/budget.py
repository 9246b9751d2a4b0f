"""Measures what the trials of a study take, stores it in the study database, and says when the budget is used up."""

import time
from collections.abc import Callable

import optuna
from optuna.trial import Trial, TrialState

from medgan.distributed.resources import Resources
from medgan.errors import InputError
from medgan.search.space import Budget
from medgan.units import duration

DEVICE_S, DEVICE, ELAPSED_S = "device_s", "device", "elapsed_s"
"""The first two are attributes of a trial: devices x seconds, and their kind; the last is one of a study: wall time."""


class Meter:
    """Measures the device time of every attempt, including failed ones, and says when the budget is used up.

    Args:
        clock: returns seconds; tests replace it.
    """

    def __init__(
        self, study: optuna.Study, budget: Budget, resources: Resources, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.study, self.budget, self.resources, self.clock = study, budget, resources, clock
        self.began: dict[int, float] = {}
        self.spent = used_device_s(study, resources.device)
        self.elapsed_before, self.start = float(study.user_attrs.get(ELAPSED_S, 0.0)), clock()

    def begin(self, trial: Trial) -> None:
        """Records that an attempt occupies its devices from now on."""
        self.began[trial.number] = self.clock()
        trial.set_user_attr(DEVICE, self.resources.device)

    def note(self, trial: Trial) -> None:
        """Stores what an attempt has taken so far, in case this process is killed."""
        trial.set_user_attr(DEVICE_S, self._device_s(trial.number))
        self.study.set_user_attr(ELAPSED_S, self._elapsed_s())

    def end(self, trial: Trial) -> None:
        """Records that an attempt is over; call it before its state is stored in the study."""
        self.note(trial)
        self.spent += self._device_s(trial.number)
        del self.began[trial.number]

    def used_up(self) -> str:
        """Returns the limit that is reached, as text for the user, or "" if none is reached."""
        spent_hours = (self.spent + sum(map(self._device_s, self.began))) / 3600
        hours = self._elapsed_s() / 3600
        if self.budget.gpu_hours is not None and spent_hours >= self.budget.gpu_hours:
            return f"{spent_hours:.3g} of {self.budget.gpu_hours:g} {self.resources.unit} used"
        if self.budget.hours is not None and hours >= self.budget.hours:
            return f"{duration(3600 * hours)} of {duration(3600 * self.budget.hours)} used"
        return ""

    def left(self) -> Budget:
        """Returns the part of the budget that is left; a limit that is used up becomes 0."""
        limits, spent = self.budget, {"gpu_hours": self.spent / 3600, "hours": self._elapsed_s() / 3600}
        left = {name: max(limit - spent[name], 0.0) for name, limit in limits if limit is not None}
        return limits.model_copy(update=left)

    def _device_s(self, number: int) -> float:
        return self.resources.devices * (self.clock() - self.began[number])

    def _elapsed_s(self) -> float:
        return self.elapsed_before + self.clock() - self.start


def used_device_s(study: optuna.Study, device: str) -> float:
    """Returns the device-seconds of all ended attempts on one kind of device; GPU and CPU time are never added."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.RUNNING]
    return sum(trial.user_attrs.get(DEVICE_S, 0.0) for trial in trials if trial.user_attrs.get(DEVICE) == device)


def limited(budget: Budget, *, gpu_hours: float | None, hours: float | None) -> Budget:
    """Returns the space's budget; limits of the command line replace its own, and raise InputError if 0 or less."""
    for option, value in (("--max-gpu-hours", gpu_hours), ("--max-hours", hours)):
        if value is not None and value <= 0:
            raise InputError("E-BUDGET-01", option=option, value=value)
    given = {"gpu_hours": gpu_hours, "hours": hours}
    return budget.model_copy(update={name: value for name, value in given.items() if value is not None})
