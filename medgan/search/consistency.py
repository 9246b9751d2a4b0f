"""Reads the three stores of a study (database, MLflow, checkpoints) together, and makes single repairs in them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from medgan.errors import InputError
from medgan.paths import Place
from medgan.search.mlflow_sync import STATUS
from medgan.search.objectives import GOALS, goals_of
from medgan.search.searcher import EPOCHS, METRICS
from medgan.search.study import (
    KEY,
    Study,
    best_trial,
    first_attempt_of,
    is_finished,
    load_study,
    queue_again,
    recover,
    state_of,
)
from medgan.search.trial import trial_folder
from medgan.tracking.study_runs import RunFacts, StudyRuns
from medgan.training.checkpoint import LAST, read_history


@dataclass(frozen=True)
class Stores:
    """Holds the three stores of a study."""

    study: Study
    uri: str
    runs: StudyRuns
    checkpoints: Path


@dataclass(frozen=True)
class Facts:
    """Holds what the stores contain at one moment.

    Attributes:
        chains: first attempt -> all attempts of its trial, in order.
        best: first attempt of the best trial, whose generator is always kept; None: no trial is usable yet.
        runs: runs in MLflow, oldest first.
        folders: first attempt -> names of the files in the trial's checkpoint folder.
        parts: incomplete files.
        driver: process that runs the study; "": no process.
        expired: whether a dead driver left its lease behind.
    """

    chains: Mapping[int, Sequence[FrozenTrial]]
    best: int | None
    goals: Sequence[str]
    runs: Sequence[RunFacts]
    folders: Mapping[int, frozenset[str]]
    parts: Sequence[Path]
    driver: str = ""
    expired: bool = False

    def run_of(self, first_attempt: int | str) -> RunFacts | None:
        """Returns the run of a trial or the study; of several, the one with the most epochs, then the most children."""
        runs = [run for run in self.runs if run.first_attempt == str(first_attempt)]
        below = [run.parent for run in self.runs]
        return max(runs, key=lambda run: (len(run.epochs), below.count(run.run_id)), default=None)


class Ending(NamedTuple):
    """Describes how the run of a trial should end: state in the study, and status in MLflow."""

    state: str
    status: str


def open_stores(name: str, place: Place) -> Stores:
    """Opens the stores of an existing study; creates nothing.

    Raises:
        InputError: the study or a store does not exist; the message names the studies that exist.
    """
    study = load_study(place.study_uri, name)
    key = study.user_attrs.get(KEY)
    if key is None:
        raise InputError("E-REPAIR-01", name=name, key=KEY)
    runs = StudyRuns(place.tracking_uri, study=name, key=key)
    return Stores(study, place.study_uri, runs, place.checkpoints(f"{name}-{key}"))


def facts_of(stores: Stores, *, driver: str = "", expired: bool = False) -> Facts:
    """Reads all three stores."""
    study, checkpoints, best = stores.study, stores.checkpoints, best_trial(stores.study)
    chains: dict[int, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        chains.setdefault(first_attempt_of(trial), []).append(trial)
    return Facts(
        chains=chains,
        best=first_attempt_of(best[0]) if best else None,
        goals=[goal.metric for goal in goals_of(study)] if GOALS in study.user_attrs else [],
        runs=stores.runs.found(),
        folders={
            int(path.name): frozenset(file.name for file in path.iterdir())
            for path in sorted(checkpoints.glob("*"))
            if path.name.isdigit() and path.is_dir() and path == trial_folder(checkpoints, int(path.name))
        },
        parts=sorted(path.relative_to(checkpoints) for path in checkpoints.rglob("*.part")),
        driver=driver,
        expired=expired,
    )


def ending_of(trial: FrozenTrial) -> Ending:
    """Returns how the run of a trial should have ended after this attempt."""
    state = state_of(trial)
    if trial.state == TrialState.RUNNING:
        state = "interrupted"
    return Ending(state, STATUS.get(state, "FAILED") if is_finished(trial) else "KILLED")


def epochs_of(trial: FrozenTrial, goals: Sequence[str]) -> dict[int, dict[str, float]]:
    """Returns epoch -> metric -> value: the goals in every epoch, and all metrics in the best one."""
    known = {
        int(epoch): dict(zip(goals, values, strict=True)) for epoch, values in trial.user_attrs.get(EPOCHS, {}).items()
    }
    best = trial.user_attrs.get(METRICS, {})
    for epoch in sorted(known, reverse=True):
        if known[epoch].items() <= best.items():
            known[epoch] = best
            break
    return known


def recover_all(stores: Stores) -> str:
    """Queues again the trials that a dead driver left running."""
    recover(stores.study)
    return "put back into the queue"


def queue(stores: Stores, *, trial: FrozenTrial) -> str:
    """Queues the next attempt of a lost trial."""
    queue_again(stores.study, trial, retries=trial.user_attrs.get("retries", 0))
    return "queued"


def withdraw(stores: Stores, *, trial: FrozenTrial) -> str:
    """Ends an attempt that duplicates another one; `Study.tell` of Optuna refuses attempts that wait."""
    storage = stores.study._storage
    storage.set_trial_user_attr(trial._trial_id, "failure", "interrupted")
    storage.set_trial_user_attr(trial._trial_id, "reason", "withdrawn: it doubled another attempt")
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    return "withdrawn"


def merge_runs(stores: Stores, *, run: RunFacts, into: RunFacts) -> str:
    """Deletes a run that duplicates another one."""
    stores.runs.merge(run.run_id, into.run_id)
    return f"deleted, {into.run_id} kept"


def delete_run(stores: Stores, *, run: RunFacts) -> str:
    """Deletes a run that belongs to no trial."""
    stores.runs.delete(run.run_id)
    return "deleted"


def end_run(stores: Stores, *, run: RunFacts, ending: Ending) -> str:
    """Writes into MLflow how a run ended."""
    stores.runs.end(run.run_id, ending.status, ending.state)
    return "set"


def add_run(stores: Stores, *, trial: FrozenTrial, beside: RunFacts, goals: Sequence[str]) -> str:
    """Creates the run of a finished trial from the study database."""
    attributes, ending, about = trial.user_attrs, ending_of(trial), stores.study.user_attrs
    tags = {
        "medgan.task": about.get("task", ""),
        "medgan.data_digest": about.get("data_digest", ""),
        "medgan.trial": trial.number,
        "medgan.reason": attributes.get("reason", "-"),
        "medgan.made_from": "study database",
    }
    run_id = stores.runs.add(
        first_attempt_of(trial),
        beside=beside.run_id,
        tags=tags,
        params=trial.params,
        start_ms=_ms(trial.datetime_start),
    )
    stores.runs.add_epochs(run_id, epochs_of(trial, goals))
    stores.runs.end(run_id, ending.status, ending.state, end_ms=_ms(trial.datetime_complete))
    return "made from the study, without pictures and losses"


def add_epochs(stores: Stores, *, run: RunFacts, epochs: Mapping[int, Mapping[str, float]]) -> str:
    """Adds missing epochs to a run: all metrics if the trial's folder has them, else those in the study database."""
    rows = dict(enumerate(read_history(trial_folder(stores.checkpoints, int(run.first_attempt))), start=1))
    stores.runs.add_epochs(run.run_id, {epoch: rows.get(epoch, dict(values)) for epoch, values in epochs.items()})
    return "added"


def delete_state(stores: Stores, *, first_attempt: int) -> str:
    """Deletes the last state, which only an unfinished trial needs."""
    (trial_folder(stores.checkpoints, first_attempt) / LAST).unlink(missing_ok=True)
    return "deleted"


def delete_folder(stores: Stores, *, first_attempt: int) -> str:
    """Deletes the checkpoint folder of a trial."""
    shutil.rmtree(trial_folder(stores.checkpoints, first_attempt))
    return "deleted"


def delete_part(stores: Stores, *, part: Path) -> str:
    """Deletes an incomplete file."""
    (stores.checkpoints / part).unlink(missing_ok=True)
    return "deleted"


def _ms(moment: datetime | None) -> int | None:
    return int(moment.timestamp() * 1000) if moment else None
