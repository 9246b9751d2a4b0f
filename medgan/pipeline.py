"""The whole job, top to bottom: prepare, plan, search, test, register, report."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from medgan.accept import Accepted, Request, accept, features_of, nothing_left_behind, refuse_what_cannot_train
from medgan.conclude import conclude, label_of, tags_of
from medgan.config import flatten
from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import cluster, is_given, machine, refuse_what_cannot_fit, resources_for
from medgan.distributed.resident import Resources
from medgan.prepared import described
from medgan.provenance import job_facts
from medgan.search.budget import Devices, Meter
from medgan.search.lease import leased
from medgan.search.plan import Forecast, forecast
from medgan.search.progress import Progress
from medgan.search.record import STATUS, Recorder
from medgan.search.report import write_report
from medgan.search.retention import Retention
from medgan.search.run import Job, run_search
from medgan.search.study import KEY, Study, best_trial, finished, recover, root_of, state_of
from medgan.summary import Outcome, show_plan, show_result
from medgan.terminal import quiet_engines
from medgan.tracking.mlflow import MlflowStudy

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
    request, dataset, place = accepted.request, accepted.dataset, accepted.request.place
    scratch = place.output / "ray" / study.study_name
    recover(study)
    tracking.close_orphans(_statuses(study))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        capacity = stack.enter_context(cluster()) if is_given() else machine()
        resources, concurrent = resources_for(capacity, workers=request.workers, concurrent=request.concurrent)
        refuse_what_cannot_train(accepted.space.corner(accepted.base), resources.workers)
        meter = Meter(study, accepted.budget, Devices(resources.devices, resources.device))
        outlook = _plan(accepted, study, resources, concurrent, terminal)
        outcome, handovers = Outcome.of(study), []
        best = best_trial(study)
        up_to_date = outcome is not None and best is not None and outcome.root == root_of(best[0])
        missing = len(finished(study)) < accepted.target and not meter.used_up()
        if missing or not up_to_date:
            if not is_given():
                terminal.print("starting Ray ...")
                capacity = stack.enter_context(cluster())
                refuse_what_cannot_fit(resources, capacity)
            job = Job(
                space=accepted.space,
                base=accepted.base,
                dataset=dataset.state,
                checkpoints=place.checkpoints(f"{study.study_name}-{study.user_attrs[KEY]}"),
                scratch=scratch,
                resources=resources,
                concurrent=min(concurrent, capacity.groups(resources)),
                target=accepted.target,
            )
            tracking.run.params({"space": accepted.space_name, **flatten(accepted.base)})
            tracking.run.tags(tags_of(dataset))
            tracking.dataset(label_of(dataset), dataset.digest, profile=described(dataset.manifest))
            if missing:
                handovers = _search(job, study, tracking, meter, dataset, terminal=terminal, outlook=outlook)
            outcome = conclude(job, study, tracking, dataset, place)
            _report(job, study, tracking, dataset, place.report(study.study_name))
    assert outcome is not None, "a study is concluded before its result is shown"
    show_result(terminal, outcome, place=place, study=study, handovers=handovers, stopped=meter.used_up())


def _plan(accepted: Accepted, study: Study, resources: Resources, concurrent: int, terminal: Console) -> Forecast:
    """Prints what will be done, and how long it should take."""
    base, output = accepted.base, accepted.request.place.output
    done = len(finished(study))
    missing = max(accepted.target - done, 0)
    threads = resources.workers * resources.cpus if missing and not resources.use_gpu else 0
    outlook = forecast(accepted.space, base, num_slices=len(accepted.dataset.slices("train")), threads=threads)
    stopping = {"asha": "ASHA", "median": "median rule", "none": "no early stopping"}[accepted.space.scheduler.kind]
    moving = f"{len(accepted.space.search)} settings, up to {base.train.epochs} epochs a trial, {stopping}"
    facts = {
        "study": f"{study.study_name}: {done} of {max(accepted.target, done)} trials done",
        "data": described(accepted.dataset.manifest),
        "space": f"{accepted.space_name}: {moving}",
        "workers": f"{resources.workers} DDP processes a trial on {resources.device}, trials at once: {concurrent}",
        "features": features_of(accepted.space.corner(base)),
        "output": f"{output} (log: logs/{study.study_name}.log)",
    }
    for note in accepted.dataset.manifest.notes:
        terminal.print(note, markup=False, soft_wrap=True)
    show_plan(terminal, facts, trials=missing, seconds=outlook.total_s(missing, concurrent))
    return outlook


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
    facts = job_facts(data_digest=dataset.digest, split_digest=dataset.manifest.split_digest)
    recorder = Recorder(tracking.trial, study=study, task=dataset.task, tags=tags_of(dataset), facts=facts)
    progress = Progress(
        terminal, goal=goal, target=job.target, finished=len(done), forecast=outlook, concurrent=job.concurrent
    )
    retention = Retention(study, job.checkpoints, job.space.checkpoints, progress.say)
    try:
        with progress:
            run_search(job, study, meter, [progress, recorder, retention])
    finally:
        recover(study)
        recorder.finally_do(tracking.close_orphans, _statuses(study))
        if not recorder.close(SETTLE_S):
            terminal.print("MLflow did not take everything; the log names what it refused")
    if len(finished(study)) < job.target and not meter.used_up():
        raise KeyboardInterrupt
    return progress.handovers


def _report(job: Job, study: Study, tracking: MlflowStudy, dataset: PreparedDataset, folder: Path) -> None:
    """Writes the study's report, and keeps it with the study's run."""
    write_report(study, folder, checkpoints=job.checkpoints, task=dataset.task)
    for path in sorted(folder.iterdir()):
        tracking.run.artifact(path, "report")


def _statuses(study: Study) -> dict[int, str]:
    """Root -> the status that the run of a finished trial should have."""
    return {root_of(trial): STATUS.get(state_of(trial), "FAILED") for trial in finished(study)}
