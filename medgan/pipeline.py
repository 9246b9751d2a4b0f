"""The whole job, top to bottom: prepare, plan, search, test, register, report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from medgan.accept import Accepted, Request, accept, nothing_left_behind
from medgan.conclude import conclude, label_of, tags_of
from medgan.config import flatten
from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import cluster, is_given, machine
from medgan.planning import fitted, foresee, show_plan, try_out
from medgan.prepared import described
from medgan.provenance import job_facts
from medgan.report.study import write_report
from medgan.search.budget import Meter
from medgan.search.doctor import mend
from medgan.search.lease import leased
from medgan.search.plan import Forecast
from medgan.search.progress import Progress
from medgan.search.record import STATUS, Recorder
from medgan.search.retention import Retention
from medgan.search.run import Job, retell, run_search
from medgan.search.stores import Stores
from medgan.search.study import KEY, Study, best_trial, finished, recover, root_of, state_of
from medgan.summary import Outcome, show_result
from medgan.terminal import LOG, quiet_engines
from medgan.tracking.mlflow import MlflowStudy
from medgan.tracking.study_runs import StudyRuns

SETTLE_S = 120.0


def tune(request: Request, console: Console) -> None:
    """Searches, tests the best trial on held-out patients, registers it; the same request goes on where it stopped.

    Raises:
        InputError: something asked for cannot be done; nothing was started, and nothing is left behind.
        JobError: the search ended without a usable trial.
        KeyboardInterrupt: stopped from outside; what was finished is kept.
    """
    place = request.place
    with ExitStack() as stack:
        with nothing_left_behind(place.output):
            accepted = accept(request, console)
            study = accepted.open_study()
            stack.enter_context(leased(place.study_uri, study.study_name))
            tracking = MlflowStudy(
                place.tracking_uri,
                f"medgan/{label_of(accepted.dataset)}",
                artifacts=place.artifacts,
                study=study.study_name,
                key=study.user_attrs[KEY],
            )
        terminal = stack.enter_context(quiet_engines(place.log_file(study.study_name)))
        _run(accepted, study, stack.enter_context(tracking), terminal)


def _run(accepted: Accepted, study: Study, tracking: MlflowStudy, terminal: Console) -> None:
    """Plan, search, test, register, report; each skipped where the study has it already."""
    dataset, place = accepted.dataset, accepted.request.place
    scratch = place.output / "ray" / study.study_name
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        fit = fitted(accepted, stack.enter_context(cluster()) if is_given() else machine())
        job = Job(
            space=accepted.space,
            base=accepted.base,
            dataset=dataset.state,
            checkpoints=place.checkpoints(f"{study.study_name}-{study.user_attrs[KEY]}"),
            scratch=scratch,
            resources=fit.resources,
            concurrent=fit.concurrent,
            target=accepted.target,
        )
        _settle(job, study, tracking, accepted)
        meter = Meter(study, accepted.budget, fit.resources)
        done = len(finished(study))
        foreseen = foresee(accepted, fit, done=done, meter=meter)
        show_plan(terminal, accepted, foreseen, done=done)
        outcome, handovers, best = Outcome.of(study), [], best_trial(study)
        up_to_date = outcome is not None and best is not None and outcome.root == root_of(best[0])
        missing = done < accepted.target and not meter.used_up()
        if missing or not up_to_date:
            if not is_given():
                terminal.print("starting Ray ...")
                stack.enter_context(cluster())
            if missing and foreseen:
                for note in try_out(accepted, foreseen, fit):
                    terminal.print(note, markup=False, soft_wrap=True)
                handovers = _search(job, study, tracking, meter, dataset, terminal=terminal, outlook=foreseen.forecast)
            outcome = conclude(job, study, tracking, dataset, place)
            _report(job, study, tracking, dataset, place.report(study.study_name))
    assert outcome is not None, "a study is concluded before its result is shown"
    show_result(terminal, outcome, place=place, study=study, handovers=handovers, stopped=meter.used_up())


def _settle(job: Job, study: Study, tracking: MlflowStudy, accepted: Accepted) -> None:
    """Brings study, MLflow and checkpoints to one account of what was done, whatever an earlier driver died of."""
    dataset, place = accepted.dataset, accepted.request.place
    recorder = _recorder(job, study, tracking, dataset, LOG.info)
    retell(job, study, recorder)
    recorder.close(SETTLE_S)
    runs = StudyRuns(place.tracking_uri, study=study.study_name, key=study.user_attrs[KEY])
    mend(Stores(study, place.study_uri, runs, job.checkpoints), LOG.info)
    tracking.go_on()
    tracking.run.params(flatten(job.base))
    tracking.run.tags({**tags_of(dataset), "medgan.space": accepted.space_name})
    tracking.dataset(label_of(dataset), dataset.digest, profile=described(dataset.manifest))


def _search(
    job: Job,
    study: Study,
    tracking: MlflowStudy,
    meter: Meter,
    dataset: PreparedDataset,
    *,
    terminal: Console,
    outlook: Forecast,
) -> list[float]:
    """Runs what is missing; returns the measured hand-overs in seconds."""
    done, goal = finished(study), job.space.goals[0]
    progress = Progress(
        terminal, goal=goal, target=job.target, finished=len(done), forecast=outlook, concurrent=job.concurrent
    )
    recorder = _recorder(job, study, tracking, dataset, progress.say)
    try:
        with progress:
            run_search(job, study, meter, [progress, recorder])
    finally:
        recover(study)
        recorder.finally_do(tracking.close_orphans, _statuses(study))
        if not recorder.close(SETTLE_S):
            terminal.print("MLflow did not take everything; the log names what it refused")
    if len(finished(study)) < job.target and not meter.used_up():
        raise KeyboardInterrupt
    return progress.handovers


def _recorder(
    job: Job, study: Study, tracking: MlflowStudy, dataset: PreparedDataset, say: Callable[[str], None]
) -> Recorder:
    """Tells MLflow of every trial; what it has taken is deleted from disk where nobody needs it any more."""
    return Recorder(
        tracking.trial,
        study=study,
        task=dataset.task,
        tags=tags_of(dataset),
        facts=job_facts(data_digest=dataset.digest, split_digest=dataset.manifest.split_digest),
        told=Retention(study, job.checkpoints, job.space.checkpoints, say).ended,
    )


def _report(job: Job, study: Study, tracking: MlflowStudy, dataset: PreparedDataset, folder: Path) -> None:
    """Writes the study's report, and keeps it with the study's run."""
    write_report(study, folder, checkpoints=job.checkpoints, task=dataset.task)
    for path in sorted(folder.iterdir()):
        tracking.run.artifact(path, "report")


def _statuses(study: Study) -> dict[int, str]:
    """Root -> the status that the run of a finished trial should have."""
    return {root_of(trial): STATUS.get(state_of(trial), "FAILED") for trial in finished(study)}
