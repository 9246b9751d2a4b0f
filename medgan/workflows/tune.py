"""The whole job, top to bottom: prepare, plan, search, report, test, register."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from medgan.cli.search_progress import Progress
from medgan.cli.summary import Outcome, show_result
from medgan.cli.terminal import quiet_engines
from medgan.config import flatten
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.distributed.cluster import cluster, is_given, is_running, machine
from medgan.errors import JobError
from medgan.locks import only_driver
from medgan.logs import LOG
from medgan.provenance import Facts, job_facts
from medgan.report.study_report import FILE_NAME, write_report
from medgan.search.budget import Meter
from medgan.search.checkpoint_retention import Retention
from medgan.search.consistency import Stores
from medgan.search.launch import Forecast
from medgan.search.lease import leased
from medgan.search.mlflow_sync import STATUS, Recorder, best_of
from medgan.search.repair import mend
from medgan.search.run_trials import SearchJob, retell, run_search
from medgan.search.study import KEY, Study, best_trial, find_study, finished, first_attempt_of, recover, state_of
from medgan.tracking import outage
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.store import NOTE_TAG, STATE_TAG
from medgan.tracking.study_runs import StudyRuns
from medgan.workflows.acceptance import Accepted, SearchRequest, accept, nothing_left_behind
from medgan.workflows.conclusion import conclude, describe_study, label_of, tags_of
from medgan.workflows.plan_search import fitted, foresee, show_plan, try_out

RECONCILE_S, HALTED_S = 120.0, 8.0
"""How long MLflow is waited for, and how long when a person, or another driver, wants this one to end."""
REPORTED = "reported"
"""Attribute of a study: how many finished trials its report tells of."""


@dataclass(frozen=True)
class FinishedSearch:
    """A search whose trials are finished, for whoever makes something of them.

    Attributes:
        lasting: makes a call of MLflow that an outage only delays.
        start: Ray, unless it runs already.
        handovers: seconds of each that was measured now.
        stopped: which limit of the budget ended the search, for a person; "" for none.
    """

    accepted: Accepted
    job: SearchJob
    study: Study
    tracking: MlflowStudy
    terminal: Console
    retry_while_away: Callable[..., Any]
    start: Callable[[], None]
    handovers: list[float]
    stopped: str


def tune(request: SearchRequest, console: Console) -> None:
    """Searches, tests the best trial on held-out patients, registers it; the same request goes on where it stopped.

    Raises:
        InputError: something asked for cannot be done; nothing was started, and nothing is left behind.
        JobError: the search ended without a usable trial.
        KeyboardInterrupt: stopped from outside; what was finished is kept.
    """
    search(request, console, conclude_with=_announce)


def search(request: SearchRequest, console: Console, *, conclude_with: Callable[[FinishedSearch], None]) -> None:
    """Prepares, plans and searches, or goes on where it stopped; what is made of the trials is another's.

    Raises:
        As `tune`.
    """
    place = request.place
    with nothing_left_behind(place.output), ExitStack() as held:
        accepted = accept(request, console)
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
        terminal = stack.enter_context(quiet_engines(place.log_file(study.study_name)))
        _run(accepted, study, stack.enter_context(tracking), terminal, lost, conclude_with)


def _run(
    accepted: Accepted,
    study: Study,
    tracking: MlflowStudy,
    terminal: Console,
    lost: Callable[[], bool],
    conclude_with: Callable[[FinishedSearch], None],
) -> None:
    """Plan, search, report and what comes after it; each skipped where the study has it already."""
    dataset, place = accepted.dataset, accepted.request.place
    scratch = place.output / "ray" / study.study_name
    with ExitStack() as stack:
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
        retry_while_away = _retry_while_away(terminal)
        _reconcile(job, study, tracking, accepted, terminal)
        meter = Meter(study, accepted.budget, fit.resources)
        done, handovers, stopped = len(finished(study)), [], meter.used_up()
        foreseen = foresee(accepted, fit, done=done, meter=meter)
        show_plan(terminal, accepted, foreseen, done=done)
        if foreseen and not stopped:
            _start(stack, terminal)
            for note in try_out(accepted, foreseen, fit):
                terminal.print(note, markup=False, soft_wrap=True)
            search = Search(job, study, tracking, dataset, meter, lost)
            handovers = _search(search, terminal, foreseen.forecast)
            stopped = meter.used_up() if len(finished(study)) < job.target else ""
        _report(job, study, dataset, place.report(study.study_name), partial(retry_while_away, tracking.run.artifact))
        start = partial(_start, stack, terminal)
        conclude_with(
            FinishedSearch(accepted, job, study, tracking, terminal, retry_while_away, start, handovers, stopped)
        )


def _announce(over: FinishedSearch) -> None:
    """Tests and registers the best trial, and tells the person."""
    job, study, tracking, place = over.job, over.study, over.tracking, over.accepted.request.place
    outcome, best = Outcome.of(study), best_trial(study)
    if outcome is None or best is None or outcome.root != first_attempt_of(best[0]):
        if best is not None:
            over.start()
        over.retry_while_away(tracking.answer)
        outcome = conclude(job, study, tracking, over.accepted.dataset, place)
    over.retry_while_away(describe_study, tracking, outcome, job.space.goals[0])
    show_result(over.terminal, outcome, place=place, study=study, handovers=over.handovers, stopped=over.stopped)


def _retry_while_away(terminal: Console) -> Callable[..., None]:
    """Makes a call of MLflow that an outage only delays, as long as it does not last."""
    return partial(
        outage.retry_while_away, say=partial(terminal.print, markup=False, soft_wrap=True), limit_s=RECONCILE_S
    )


def _reconcile(job: SearchJob, study: Study, tracking: MlflowStudy, accepted: Accepted, terminal: Console) -> None:
    """Brings study, MLflow and checkpoints to one account of what was done, whatever an earlier driver died of."""
    dataset, place, retry_while_away = accepted.dataset, accepted.request.place, _retry_while_away(terminal)
    recorder = _recorder(job, study, tracking, dataset, terminal.print, facts=None)  # of what others did
    retell(job, study, recorder)
    if not recorder.close(RECONCILE_S):
        raise JobError("E-SEARCH-03")
    runs = StudyRuns(place.tracking_uri, study=study.study_name, key=study.user_attrs[KEY])
    retry_while_away(mend, Stores(study, place.study_uri, runs, job.checkpoints), LOG.info)
    retry_while_away(tracking.go_on)
    retry_while_away(tracking.run.params, {"preset": job.space.named, **flatten(job.base)})
    retry_while_away(tracking.run.tags, {**_tags(job, dataset), "medgan.space": accepted.space_name})
    profile = described(dataset.manifest)
    retry_while_away(partial(tracking.dataset, label_of(dataset), dataset.digest, profile=profile))


@dataclass(frozen=True)
class Search:
    """A search under way: what is to be done, and where it is written down.

    Attributes:
        lost: whether the study is another driver's by now.
    """

    job: SearchJob
    study: Study
    tracking: MlflowStudy
    dataset: PreparedDataset
    meter: Meter
    lost: Callable[[], bool]


def _search(search: Search, terminal: Console, outlook: Forecast) -> list[float]:
    """Runs what is missing; returns the measured hand-overs in seconds."""
    job, study, done = search.job, search.study, len(finished(search.study))
    progress = Progress(
        terminal,
        goal=job.space.goals[0],
        target=job.target,
        finished=done,
        forecast=outlook,
        concurrent=job.concurrent,
    )
    facts = job_facts(data_digest=search.dataset.digest, split_digest=search.dataset.manifest.split_digest)
    recorder = _recorder(job, study, search.tracking, search.dataset, progress.say, facts=facts)
    recorder.finally_do(_note, search, "running")
    try:
        with progress:
            run_search(job, study, search.meter, [progress, recorder])
    finally:
        if not search.lost():
            recover(study)
            recorder.finally_do(search.tracking.close_orphans, _statuses(study))
            recorder.finally_do(_note, search, "stopped")
        halted = search.lost() or (len(finished(study)) < job.target and not search.meter.used_up())
        if not recorder.close(HALTED_S if halted else RECONCILE_S):
            terminal.print("MLflow did not take everything; the log says what, and the same command again tells it")
        if recorder.background.late:
            search.tracking.give_up()
    if halted:
        raise KeyboardInterrupt
    if recorder.background.late:
        raise JobError("E-SEARCH-04", reconcile_s=RECONCILE_S)
    return progress.handovers


def _note(search: Search, state: str) -> None:
    """Says on the study's page how far it is; what came out of it is said when that is known."""
    job, goal, tracking = search.job, search.job.space.goals[0], search.tracking
    done = f"{len(finished(search.study))} of {job.target} trials done"
    text = f"This search is going on; {done} when it was started" if state == "running" else f"Stopped with {done}"
    trials = tracking.link_to_trials("Its trials, best first", best_of(goal.metric), ascending=goal.mode == "min")
    tracking.run.tags({NOTE_TAG: f"{text}. {trials}.", STATE_TAG: state})


def _start(stack: ExitStack, terminal: Console) -> None:
    """Ray, unless it runs already."""
    if not is_running():
        terminal.print("starting Ray ...")
        stack.enter_context(cluster())


def _recorder(
    job: SearchJob,
    study: Study,
    tracking: MlflowStudy,
    dataset: PreparedDataset,
    say: Callable[[str], None],
    *,
    facts: Facts | None,
) -> Recorder:
    """Tells MLflow of every trial; what it has taken is deleted from disk where nobody needs it any more."""
    shared = _tags(job, dataset)
    return Recorder(
        lambda first_attempt, tags, began_ms: tracking.trial(first_attempt, {**shared, **tags}, began_ms),
        study=study,
        task=dataset.task,
        facts=facts,
        told=Retention(study, job.checkpoints, job.space.checkpoints, say).ended,
        say=say,
    )


def _tags(job: SearchJob, dataset: PreparedDataset) -> dict[str, str]:
    """What the runs of a study have in common."""
    return {**tags_of(dataset), "medgan.preset": job.space.named}


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


def _statuses(study: Study) -> dict[int, str]:
    """Root -> the status that the run of a finished trial should have."""
    return {first_attempt_of(trial): STATUS.get(state_of(trial), "FAILED") for trial in finished(study)}
