"""Ray Tune's searcher on the study database: asks Optuna for parameters, tells it honestly what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from medgan.errors import InputError
from medgan.search.study import fail, finished


class StudySearcher(Searcher):
    """Hands out trials until the study holds `target` finished ones.

    Optuna's own states are kept honest: a trial that Tune's scheduler stopped is PRUNED with its intermediate values, a
    diverged one FAILED with the reason, one lost to the infrastructure FAILED and put back into the queue.

    Args:
        study: the truth.
        target: finished trials wanted.
        assign: an Optuna trial -> what Tune's trial needs to run it; it draws the trial's parameters.
        refused: hears of a trial whose settings do not go together, and why.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        target: int,
        assign: Callable[[Trial], dict[str, Any]],
        refused: Callable[[int, str], None] = lambda number, reason: None,
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self.study, self.target, self.assign, self.refused = study, target, assign, refused
        self.running: dict[str, Trial] = {}
        self.reported: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the study database is the truth, Tune's snapshots are never restored

    def suggest(self, trial_id: str) -> Any:
        """The next trial, nothing for now (one that runs may have to be repeated), or `FINISHED`."""
        while self.target - len(finished(self.study)) > len(self.running):
            trial = self.study.ask()
            try:
                assigned = self.assign(trial)
            except InputError as error:  # settings that do not go together
                fail(self.study, self.study.get_trials(deepcopy=False)[trial.number], "input", str(error))
                self.refused(trial.number, str(error))
                continue
            self.running[trial_id], self.reported[trial_id] = trial, 0
            return assigned
        return None if self.running else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records an epoch's value; epochs that are replayed after a restart are known already."""
        trial = self.running.get(trial_id)
        if trial is None or "objective" not in result or result["epoch"] <= self.reported[trial_id]:
            return
        trial.report(result["objective"], step=result["epoch"])
        self.reported[trial_id] = result["epoch"]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how the trial ended."""
        trial = self.running.get(trial_id)
        if trial is None:
            return
        if result:
            self.on_trial_result(trial_id, result)
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        state = (result or {}).get("state", "")
        if error or not result:
            fail(self.study, frozen, "infrastructure", "the trial's actor died or could not start its workers, twice")
        elif state == "complete":
            self.study.tell(trial.number, result["objective"])
        elif state == "running":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            fail(self.study, frozen, state, result["reason"])
        del self.running[trial_id]

    def save(self, checkpoint_path: str) -> None:
        """Nothing, see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `__getstate__`."""
