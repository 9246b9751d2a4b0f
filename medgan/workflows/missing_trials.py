"""Runs the trials of a search that are missing, and records each in MLflow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from medgan.data.dataset import PreparedDataset
from medgan.errors import JobError
from medgan.provenance import Facts, job_facts
from medgan.search.budget import Meter
from medgan.search.checkpoint_retention import Retention
from medgan.search.launch import Forecast
from medgan.search.mlflow_sync import STATUS, Recorder, best_of
from medgan.search.objectives import Goal
from medgan.search.run_trials import Listener, SearchJob, run_search
from medgan.search.study import Study, finished, first_attempt_of, recover, state_of
from medgan.search.trial import Assignment
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.store import NOTE_TAG, STATE_TAG
from medgan.workflows.conclusion import tags_of
from medgan.workflows.events import Note, Notify, say

RECONCILE_S, HALTED_S = 120.0, 8.0
"""These are the seconds to wait for MLflow: usually, and when a person or another driver wants this one to end."""


@dataclass(frozen=True)
class SearchStart:
    """Describes a search whose trials are about to start.

    Attributes:
        goal: the first goal, reported for every epoch.
        target: finished trials wanted in the whole study.
    """

    goal: Goal
    target: int
    finished: int
    forecast: Forecast
    concurrent: int


class SearchWatcher(Listener, Protocol):
    """Hears when the trials of a search start and end, and what happens to each."""

    def begin(self, start: SearchStart) -> None: ...

    def end(self) -> None: ...


class Unwatched:
    """Watches a search and does nothing."""

    def begin(self, start: SearchStart) -> None: ...

    def end(self) -> None: ...

    def started(self, assignment: Assignment) -> None: ...

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None: ...

    def refused(self, number: int, reason: str) -> None: ...

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None: ...


UNWATCHED = Unwatched()


@dataclass(frozen=True)
class Search:
    """Holds a running search: what is to be done, and where it is recorded.

    Attributes:
        lost: whether the study is another driver's by now.
    """

    job: SearchJob
    study: Study
    tracking: MlflowStudy
    dataset: PreparedDataset
    meter: Meter
    lost: Callable[[], bool]


def run_missing(search: Search, notify: Notify, watcher: SearchWatcher) -> None:
    """Runs the missing trials, and records each in MLflow."""
    job, study = search.job, search.study
    facts = job_facts(data_digest=search.dataset.digest, split_digest=search.dataset.manifest.split_digest)
    recorder = recorder_of(job, study, search.tracking, search.dataset, say(notify), facts=facts)
    recorder.finally_do(_note, search, "running")
    try:
        run_search(job, study, search.meter, [watcher, recorder])
    finally:
        watcher.end()
        if not search.lost():
            recover(study)
            recorder.finally_do(search.tracking.close_orphans, _statuses(study))
            recorder.finally_do(_note, search, "stopped")
        halted = search.lost() or (len(finished(study)) < job.target and not search.meter.used_up())
        if not recorder.close(HALTED_S if halted else RECONCILE_S):
            notify(Note("Some results could not be sent to MLflow; run the same command again to send them."))
        if recorder.background.late:
            search.tracking.give_up()
    if halted:
        raise KeyboardInterrupt
    if recorder.background.late:
        raise JobError("E-SEARCH-04", reconcile_s=RECONCILE_S)


def _note(search: Search, state: str) -> None:
    """Writes on the study's page how far it is; the result is written when it is known."""
    job, goal, tracking = search.job, search.job.space.goals[0], search.tracking
    done = f"{len(finished(search.study))} of {job.target} trials done"
    text = f"This search is going on; {done} when it was started" if state == "running" else f"Stopped with {done}"
    trials = tracking.link_to_trials("Its trials, best first", best_of(goal.metric), ascending=goal.mode == "min")
    tracking.run.tags({NOTE_TAG: f"{text}. {trials}.", STATE_TAG: state})


def recorder_of(
    job: SearchJob,
    study: Study,
    tracking: MlflowStudy,
    dataset: PreparedDataset,
    say: Callable[[str], None],
    *,
    facts: Facts | None,
) -> Recorder:
    """Returns what records every trial in MLflow, and then deletes from disk what is not needed any more."""
    shared = shared_tags(job, dataset)
    return Recorder(
        lambda first_attempt, tags, began_ms: tracking.trial(first_attempt, {**shared, **tags}, began_ms),
        study=study,
        task=dataset.task,
        facts=facts,
        recorded=Retention(study, job.checkpoints, job.space.checkpoints, say).ended,
        say=say,
    )


def shared_tags(job: SearchJob, dataset: PreparedDataset) -> dict[str, str]:
    """Returns the tags that the runs of a study have in common."""
    return {**tags_of(dataset), "medgan.preset": job.space.named}


def _statuses(study: Study) -> dict[int, str]:
    """Returns the status that the run of each finished trial should have, by its first attempt."""
    return {first_attempt_of(trial): STATUS.get(state_of(trial), "FAILED") for trial in finished(study)}
