"""Ray Tune's searcher on the study database: asks Optuna for parameters, tells it honestly what became of them."""

from __future__ import annotations

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
from medgan.search.study import fail, finished, first_attempt_of, frozen

EPOCHS, METRICS, TRAINED_S = "epochs", "metrics", "trained_s"
"""Attributes of a trial: epoch -> the goals' values in it, all metrics of the best, seconds of all."""


@dataclass
class Running:
    """A trial in Tune's hands."""

    trial: Trial
    epochs: dict[str, list[float]] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    best: Mapping[str, float] = field(default_factory=dict)
    trained_s: float = 0.0


class StudySearcher(Searcher):
    """Hands out trials until the study holds `target` finished ones, or its budget is used up.

    Optuna's own states are kept honest: a trial that Tune's scheduler stopped is PRUNED with its intermediate values, a
    diverged one FAILED with the reason, one lost to the infrastructure FAILED and put back into the queue. With several
    goals, Optuna takes no intermediate values; they are kept in an attribute, as with one.

    Args:
        study: the truth.
        target: finished trials wanted.
        assign: an Optuna trial -> what Tune's trial needs to run it; it draws the trial's parameters.
        meter: of the budget.
        constraints: told to Optuna of every trial that has a result.
        refused: hears of a trial whose settings do not go together, and why.
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
        """What the study database said when it did not take how a trial ended."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the study database is the truth, Tune's snapshots are never restored

    def suggest(self, trial_id: str) -> Any:
        """The next trial, nothing for now (one that runs may have to be repeated), or `FINISHED`."""
        while self._may_begin():
            trial = self.study.ask()
            try:
                assigned = self.assign(trial)
            except InputError as error:  # settings that do not go together
                fail(self.study, frozen(self.study, trial.number), "input", str(error))
                self.refused(first_attempt_of(trial), str(error))
                continue
            self.meter.begin(trial)
            self.running[trial_id] = Running(trial)
            return assigned
        return None if self.running else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records an epoch's values, and what the trial took until now."""
        running = self.running.get(trial_id)
        if running is not None and self._take(running, result):
            self.meter.note(running.trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how the trial ended; where that fails, which Tune would pass over, no other trial begins."""
        if trial_id not in self.running:
            return
        try:
            self._end(self.running.pop(trial_id), result, error)
        except Exception as fault:  # of whichever database; Tune would drop it
            LOG.exception("telling the study how a trial ended")
            self.fault = (str(fault) or type(fault).__name__).splitlines()[0]

    def _may_begin(self) -> bool:
        """Whether one more trial is wanted, and can be paid for and recorded."""
        if self.fault or self.meter.used_up():
            return False
        return self.target - len(finished(self.study)) > len(self.running)

    def _end(self, running: Running, result: dict[str, Any] | None, error: bool) -> None:
        if result:
            self._take(running, result)
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
        """Nothing, see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `__getstate__`."""

    def _take(self, running: Running, result: dict[str, Any]) -> bool:
        """Whether it was news: epochs that are replayed after a restart are known already."""
        if "values" not in result or str(result["epoch"]) in running.epochs:
            return False
        running.epochs[str(result["epoch"])] = result["now"]
        running.values, running.best = result["values"], dict(result["best"])
        running.trained_s = result["trained_s"]
        if len(self.study.directions) == 1:
            running.trial.report(result["values"][0], step=result["epoch"])
        return True

    def _ending(self, result: dict[str, Any] | None, error: bool) -> tuple[str, str]:
        """How a trial ended, and why."""
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
        running.trial.set_user_attr(TRAINED_S, running.trained_s)
        for constraint in self.constraints:
            measured = constraint.metric in running.best  # or no validation slice shows what it is about
            running.trial.set_constraint(str(constraint), constraint.excess(running.best) if measured else math.inf)
