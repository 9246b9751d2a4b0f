"""Runs a whole search, top to bottom: prepare, plan, search, report, test, register."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from medgan.config import flatten
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.distributed.cluster import cluster, is_given, is_running
from medgan.distributed.resources import machine
from medgan.errors import JobError
from medgan.locks import only_driver
from medgan.logs import LOG
from medgan.report.chance import importances_text
from medgan.report.study_overview import Overview
from medgan.report.study_report import FILE_NAME, write_report
from medgan.search.budget import Meter
from medgan.search.consistency import Stores
from medgan.search.lease import leased
from medgan.search.objectives import goals_of
from medgan.search.repair import mend
from medgan.search.run_trials import SearchJob, retell
from medgan.search.study import KEY, Study, best_trial, find_study, finished, first_attempt_of, front, summary
from medgan.tracking import outage
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.study_runs import StudyRuns
from medgan.workflows.acceptance import Accepted, SearchRequest, accept
from medgan.workflows.conclusion import Outcome, conclude, describe_study, label_of
from medgan.workflows.events import EnginesStart, Note, Notify, ignore, say
from medgan.workflows.missing_trials import (
    RECONCILE_S,
    UNWATCHED,
    Search,
    SearchStart,
    SearchWatcher,
    recorder_of,
    run_missing,
    shared_tags,
)
from medgan.workflows.plan_search import fitted, foresee, report_plan, try_out
from medgan.workflows.requirements import nothing_left_behind

REPORTED = "reported"
"""This attribute of a study holds how many finished trials its report covers."""


T = TypeVar("T")


@dataclass(frozen=True)
class FinishedSearch:
    """Holds a search whose trials are finished, for the function that makes something of them.

    Attributes:
        retry_while_away: makes a call of MLflow again until MLflow answers.
        start: starts Ray, unless it runs already.
        stopped: which limit of the budget ended the search, for a person; "" for none.
    """

    accepted: Accepted
    job: SearchJob
    study: Study
    tracking: MlflowStudy
    notify: Notify
    retry_while_away: Callable[..., Any]
    start: Callable[[], None]
    stopped: str


@dataclass(frozen=True)
class SearchResult:
    """Describes what a search found.

    Attributes:
        counts: state -> number of finished trials that ended so.
        goals: metrics that were optimized, the first one first.
        front: number and values of each trial that no other beats in every goal.
        stopped: which limit of the budget ended the search, for a person; "" for none.
    """

    study: str
    counts: Mapping[str, int]
    goals: tuple[str, ...]
    front: tuple[tuple[int, tuple[float, ...]], ...]
    outcome: Outcome
    stopped: str


def tune(request: SearchRequest, notify: Notify = ignore, watcher: SearchWatcher = UNWATCHED) -> SearchResult:
    """Searches, tests the best trial on held-out patients, registers it; the same request goes on where it stopped.

    Raises:
        InputError: something in the request cannot be done; nothing was started, and nothing is left behind.
        JobError: the search ended without a usable trial.
        KeyboardInterrupt: stopped from outside; what was finished is kept.
    """
    return search(request, notify, watcher, conclude_with=_register_best)


def search(
    request: SearchRequest, notify: Notify, watcher: SearchWatcher, *, conclude_with: Callable[[FinishedSearch], T]
) -> T:
    """Prepares, plans and searches, or goes on where it stopped; returns what `conclude_with` makes of the trials."""
    place = request.place
    with nothing_left_behind(place.output), ExitStack() as held:
        accepted = accept(request, notify)
        held.enter_context(only_driver(place.lock_file(accepted.name), accepted.name))
        lost = held.enter_context(leased(place.study_uri, accepted.name))
        if not is_given() and find_study(place.study_uri, accepted.name) is None:
            foresee(accepted, fitted(accepted, machine()), done=0, meter=None)  # refused before anything is stored
        study = accepted.open_study()
        tracking = MlflowStudy(
            place.tracking_uri,
            f"medgan/{label_of(accepted.dataset)}",
            artifacts=place.artifacts,
            study=study.study_name,
            key=study.user_attrs[KEY],
        )
        holding = held.pop_all()
    with holding as stack:
        notify(EnginesStart(place.log_file(study.study_name)))
        return conclude_with(_run(accepted, study, stack.enter_context(tracking), notify, watcher, lost, stack))


def _run(
    accepted: Accepted,
    study: Study,
    tracking: MlflowStudy,
    notify: Notify,
    watcher: SearchWatcher,
    lost: Callable[[], bool],
    stack: ExitStack,
) -> FinishedSearch:
    """Plans, searches and reports; each is skipped where the study has it already."""
    dataset, place = accepted.dataset, accepted.request.place
    scratch = place.output / "ray" / study.study_name
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    fit = fitted(accepted, stack.enter_context(cluster()) if is_given() else machine())
    job = SearchJob(
        space=accepted.space,
        base=accepted.base,
        dataset=dataset.state,
        checkpoints=place.checkpoints(f"{study.study_name}-{study.user_attrs[KEY]}"),
        scratch=scratch,
        resources=fit.resources,
        concurrent=fit.concurrent,
        target=accepted.target,
    )
    retry_while_away = partial(outage.retry_while_away, say=say(notify), limit_s=RECONCILE_S)
    _reconcile(job, study, tracking, accepted, notify, retry_while_away)
    meter = Meter(study, accepted.budget, fit.resources)
    done, stopped = len(finished(study)), meter.used_up()
    foreseen = foresee(accepted, fit, done=done, meter=meter)
    report_plan(notify, accepted, foreseen, done=done)
    start = partial(_start, stack, notify)
    if foreseen and not stopped:
        start()
        for note in try_out(accepted, foreseen, fit):
            notify(Note(note))
        search = Search(job, study, tracking, dataset, meter, lost)
        watcher.begin(SearchStart(job.space.goals[0], job.target, done, foreseen.forecast, job.concurrent))
        run_missing(search, notify, watcher)
        stopped = meter.used_up() if len(finished(study)) < job.target else ""
    _report(job, study, dataset, place.report(study.study_name), partial(retry_while_away, tracking.run.artifact))
    return FinishedSearch(accepted, job, study, tracking, notify, retry_while_away, start, stopped)


def _register_best(search: FinishedSearch) -> SearchResult:
    """Tests and registers the best trial, unless that was done."""
    job, study, tracking, place = search.job, search.study, search.tracking, search.accepted.request.place
    outcome, best = Outcome.of(study), best_trial(study)
    if outcome is None or best is None or outcome.root != first_attempt_of(best[0]):
        if best is not None:
            search.start()
        search.retry_while_away(tracking.answer)
        outcome = conclude(job, study, tracking, search.accepted.dataset, place)
    importances = importances_text(Overview.of(study))
    search.retry_while_away(describe_study, tracking, outcome, job.space.goals[0], importances)
    return SearchResult(
        study=study.study_name,
        counts=summary(finished(study)),
        goals=tuple(goal.metric for goal in goals_of(study)),
        front=tuple((first_attempt_of(trial), tuple(trial.values)) for trial in front(study)),
        outcome=outcome,
        stopped=search.stopped,
    )


def _reconcile(
    job: SearchJob,
    study: Study,
    tracking: MlflowStudy,
    accepted: Accepted,
    notify: Notify,
    retry_while_away: Callable[..., Any],
) -> None:
    """Makes study, MLflow and checkpoints agree on what was done, however an earlier driver died."""
    dataset, place = accepted.dataset, accepted.request.place
    recorder = recorder_of(job, study, tracking, dataset, say(notify), facts=None)  # of what others did
    retell(job, study, recorder)
    if not recorder.close(RECONCILE_S):
        raise JobError("E-SEARCH-03", reconcile_s=RECONCILE_S)
    runs = StudyRuns(place.tracking_uri, study=study.study_name, key=study.user_attrs[KEY])
    retry_while_away(mend, Stores(study, place.study_uri, runs, job.checkpoints), LOG.info)
    retry_while_away(tracking.go_on)
    retry_while_away(tracking.run.params, {"preset": job.space.named, **flatten(job.base)})
    retry_while_away(tracking.run.tags, {**shared_tags(job, dataset), "medgan.space": accepted.space_name})
    profile = described(dataset.manifest)
    retry_while_away(partial(tracking.dataset, label_of(dataset), dataset.digest, profile=profile))


def _start(stack: ExitStack, notify: Notify) -> None:
    """Starts Ray, unless it runs already."""
    if not is_running():
        notify(Note("starting Ray ..."))
        stack.enter_context(cluster())


def _report(
    job: SearchJob, study: Study, dataset: PreparedDataset, folder: Path, take: Callable[[Path, str], None]
) -> None:
    """Writes the study's report where trials have come since the last one, and keeps it with the study's run."""
    done = len(finished(study))
    if done == study.user_attrs.get(REPORTED) and (folder / FILE_NAME).exists():
        return
    write_report(study, folder, checkpoints=job.checkpoints, task=dataset.task)
    for path in sorted(filter(Path.is_file, folder.iterdir())):
        take(path, "report")
    study.set_user_attr(REPORTED, done)
