"""The whole job, top to bottom: prepare, plan, search, test, register."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from medgan.accept import (
    dataset_for,
    features_of,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_unfit_weights,
    refuse_what_cannot_train,
    with_weights,
)
from medgan.build.networks import deepest_block
from medgan.build.training import with_lpips
from medgan.conclude import conclude, label_of, tags_of
from medgan.config import Config, at_least_one, flatten
from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import cluster, is_given, machine, refuse_what_cannot_fit, resources_for
from medgan.distributed.resident import Resources
from medgan.errors import InputError
from medgan.place import Place
from medgan.prepared import described
from medgan.search.plan import Forecast, forecast
from medgan.search.progress import Progress
from medgan.search.record import STATUS, Recorder, Retention
from medgan.search.run import Job, run_search
from medgan.search.space import Space, read_space
from medgan.search.study import KEY, Identity, Study, best_trial, finished, open_study, recover, root_of, state_of
from medgan.summary import Outcome, show_plan, show_result
from medgan.tasks import Task
from medgan.terminal import only_driver, quiet_engines
from medgan.tracking.mlflow import MlflowStudy

SETTLE_S = 120.0


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None is the house's default (see `medgan tune --help`)."""

    task: Task
    place: Place
    data: str | None = None
    space: str | None = None
    study: str | None = None
    trials: int | None = None
    workers: int | None = None
    concurrent: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """A request that was checked, its data prepared and its study opened; no engine runs yet."""

    request: Request
    space_name: str
    space: Space
    base: Config
    target: int
    dataset: PreparedDataset
    study: Study
    tracking: MlflowStudy


def tune(request: Request, console: Console) -> None:
    """Searches, tests the best trial on held-out patients, registers it; the same request goes on where it stopped.

    Raises:
        InputError: something asked for cannot be done; nothing was started, and nothing is left behind.
        JobError: the search ended without a usable trial.
        KeyboardInterrupt: stopped from outside; what was finished is kept.
    """
    with nothing_left_behind(request.place.output):
        accepted = _accept(request, console)
    name = accepted.study.study_name
    with (
        only_driver(request.place.lock_file(name), name),
        quiet_engines(request.place.log_file(name)) as terminal,
        accepted.tracking,
    ):
        _run(accepted, terminal)


def _accept(request: Request, console: Console) -> Accepted:
    """Everything that can be refused, refused: in the order of what it costs to find out."""
    space_name = request.space or (request.task.name if request.data else request.task.quick_space)
    space = read_space(space_name, request.overrides)
    target = space.trials if request.trials is None else at_least_one("--trials", request.trials)
    base = with_lpips(space.base(request.overrides))
    if not is_given():
        resources, _ = resources_for(machine(), workers=request.workers, concurrent=request.concurrent)
        refuse_what_cannot_train(space.corner(base), resources.workers)
    _refuse_unfit_name(request.study)
    refuse_unfit_weights(base, deepest_block(space.corner(base)))
    dataset = dataset_for(request.data, request.task, size=base.data.size, place=request.place, console=console)
    refuse_too_few_slices(space.corner(base), len(dataset.slices("train")))
    base = with_weights(base, deepest_block(space.corner(base)), request.place)
    identity = Identity(request.task.name, dataset.digest, space.digest(request.overrides))
    name = request.study or identity.default_name()
    place, experiment = request.place, f"medgan/{label_of(dataset)}"
    study = open_study(place.study_uri, name, identity, seed=base.train.seed)
    tracking = MlflowStudy(
        place.tracking_uri, experiment, artifacts=place.artifacts, study=name, key=study.user_attrs[KEY]
    )
    return Accepted(request, space_name, space, base, target, dataset, study, tracking)


def _run(accepted: Accepted, terminal: Console) -> None:
    """Plan, search, test, register; each skipped where the study has it already."""
    request, study, dataset, tracking = accepted.request, accepted.study, accepted.dataset, accepted.tracking
    place, scratch = request.place, request.place.output / "ray" / study.study_name
    recover(study)
    tracking.close_orphans(_statuses(study))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        capacity = stack.enter_context(cluster()) if is_given() else machine()
        resources, concurrent = resources_for(capacity, workers=request.workers, concurrent=request.concurrent)
        refuse_what_cannot_train(accepted.space.corner(accepted.base), resources.workers)
        outlook = _plan(accepted, resources, concurrent, terminal)
        outcome, handovers = Outcome.of(study), []
        best = best_trial(study)
        up_to_date = outcome is not None and best is not None and outcome.root == root_of(best[0])
        if len(finished(study)) < accepted.target or not up_to_date:
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
            handovers = _search(job, study, tracking, dataset, terminal=terminal, outlook=outlook)
            outcome = conclude(job, study, tracking, dataset, place)
    assert outcome is not None, "a study is concluded before its result is shown"
    show_result(terminal, outcome, place=place, study=study, handovers=handovers)


def _plan(accepted: Accepted, resources: Resources, concurrent: int, terminal: Console) -> Forecast:
    """Prints what will be done, and how long it should take."""
    base, study, output = accepted.base, accepted.study, accepted.request.place.output
    done = len(finished(study))
    missing = max(accepted.target - done, 0)
    threads = resources.workers * resources.cpus if missing and not resources.use_gpu else 0
    outlook = forecast(accepted.space, base, num_slices=len(accepted.dataset.slices("train")), threads=threads)
    moving = f"{len(accepted.space.search)} settings, up to {base.train.epochs} epochs a trial, ASHA"
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
    dataset: PreparedDataset,
    *,
    terminal: Console,
    outlook: Forecast,
) -> list[float]:
    """Runs what is missing; returns the measured hand-overs in seconds."""
    done = finished(study)
    if len(done) >= job.target:
        return []
    recorder = Recorder(tracking.trial, task=dataset.task, tags=tags_of(dataset))
    retention = Retention(study, job.checkpoints)
    progress = Progress(terminal, target=job.target, finished=len(done), forecast=outlook, concurrent=job.concurrent)
    try:
        with progress:
            run_search(job, study, [progress, recorder, retention])
    finally:
        recover(study)
        recorder.finally_do(tracking.close_orphans, _statuses(study))
        if not recorder.close(SETTLE_S):
            terminal.print("MLflow did not take everything; the log names what it refused")
    if len(finished(study)) < job.target:
        raise KeyboardInterrupt
    return progress.handovers


def _refuse_unfit_name(name: str | None) -> None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(f"--study: expected letters, digits, dots, dashes and underscores; got {name!r}")


def _statuses(study: Study) -> dict[int, str]:
    """Root -> the status that the run of a finished trial should have."""
    return {root_of(trial): STATUS.get(state_of(trial), "FAILED") for trial in finished(study)}
