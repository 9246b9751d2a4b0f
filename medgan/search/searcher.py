"""Connects Ray Tune to the study database: gets parameters from Optuna, and stores how each trial really ended."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from medgan.errors import InputError
from medgan.logs import LOG
from medgan.search.budget import Meter
from medgan.search.objectives import Constraint
from medgan.search.study import SHARES, fail, finished, first_attempt_of, frozen

EPOCHS, METRICS, TRAINED_S = "epochs", "metrics", "trained_s"
"""Attributes of a trial: epoch -> values of the goals, all metrics of the best epoch, seconds of all epochs."""


@dataclass
class Running:
    """Holds a trial that Ray Tune is running."""

    trial: Trial
    epochs: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    best: Mapping[str, float] = field(default_factory=dict)
    trained_s: float = 0.0


class StudySearcher(Searcher):
    """Starts trials until the study holds `target` finished ones, or its budget is used up.

    Optuna's states stay true: a trial that Tune's scheduler stopped is PRUNED with its intermediate values, a diverged
    trial is FAIL with the reason, and a trial lost to the infrastructure is FAIL and queued again. With several goals
    Optuna accepts no intermediate values; an attribute holds them in both cases.

    Args:
        assign: samples the parameters of an Optuna trial, and returns the configuration of Tune's trial.
        constraints: limits, stored in the study for every trial that has a result.
        refused: called with a trial whose settings are incompatible, and the reason.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        target: int,
        assign: Callable[[Trial], dict[str, Any]],
        meter: Meter,
        constraints: Sequence[Constraint] = (),
        refused: Callable[[int, str], None] = lambda number, reason: None,
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self.study, self.target, self.assign, self.meter = study, target, assign, meter
        self.constraints, self.refused = constraints, refused
        self.running: dict[str, Running] = {}
        self.fault = ""
        """The error of the study database, if storing how a trial ended failed."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the study database decides; Tune's snapshots are never restored

    def suggest(self, trial_id: str) -> Any:
        """Returns the next trial, None for now (a running trial may have to be repeated), or `FINISHED`."""
        while self._may_begin():
            trial = self.study.ask()
            try:
                assigned = self.assign(trial)
            except InputError as error:  # incompatible settings
                fail(self.study, frozen(self.study, trial.number), "input", str(error))
                self.refused(first_attempt_of(trial), str(error))
                continue
            self.meter.begin(trial)
            self.running[trial_id] = Running(trial)
            return assigned
        return None if self.running else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records the values of an epoch, and the device time of the trial so far."""
        running = self.running.get(trial_id)
        if running is not None and self._record(running, result):
            self.meter.note(running.trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Stores how a trial ended; if that fails, which Tune would ignore, no other trial begins."""
        if trial_id not in self.running:
            return
        try:
            self._end(self.running.pop(trial_id), result, error)
        except Exception as fault:  # any database error; Tune would ignore it
            LOG.exception("storing how a trial ended failed")
            self.fault = (str(fault) or type(fault).__name__).splitlines()[0]

    def _may_begin(self) -> bool:
        """Returns whether another trial is needed, the budget allows it, and the database works."""
        if self.fault or self.meter.used_up():
            return False
        return self.target - len(finished(self.study)) > len(self.running)

    def _end(self, running: Running, result: dict[str, Any] | None, error: bool) -> None:
        if result:
            self._record(running, result)
        self.meter.end(running.trial)
        self._keep_results(running)
        kind, reason = self._ending(result, error)
        if kind == "complete":
            self.study.tell(running.trial.number, running.values)
        elif kind == "pruned":
            self.study.tell(running.trial.number, state=TrialState.PRUNED)
        else:
            fail(self.study, frozen(self.study, running.trial.number), kind, reason)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing, see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing, see `__getstate__`."""

    def _record(self, running: Running, result: dict[str, Any]) -> bool:
        """Records an epoch, and returns whether it is new; epochs replayed after a restart are known already."""
        if "values" not in result or str(result["epoch"]) in running.epochs:
            return False
        running.epochs[str(result["epoch"])] = result["now"]
        running.shares[str(result["epoch"])] = dict(result["shares"])
        running.values, running.best = result["values"], dict(result["best"])
        running.trained_s = result["trained_s"]
        if len(self.study.directions) == 1:
            running.trial.report(result["values"][0], step=result["epoch"])
        return True

    def _ending(self, result: dict[str, Any] | None, error: bool) -> tuple[str, str]:
        """Returns how a trial ended, and why."""
        if error or not result:
            return "infrastructure", "the trial's actor died, or could not start its workers"
        if result.get("state") != "running":
            return result.get("state", "error"), result.get("reason", "")
        used_up = self.meter.used_up()
        return ("budget", used_up) if used_up else ("pruned", "")

    def _keep_results(self, running: Running) -> None:
        if not running.epochs:
            return
        running.trial.set_user_attr(EPOCHS, running.epochs)
        running.trial.set_user_attr(METRICS, dict(running.best))
        running.trial.set_user_attr(SHARES, running.shares)
        running.trial.set_user_attr(TRAINED_S, running.trained_s)
        for constraint in self.constraints:
            measured = constraint.metric in running.best  # False: no validation slice allowed this metric
            running.trial.set_constraint(str(constraint), constraint.excess(running.best) if measured else math.inf)
