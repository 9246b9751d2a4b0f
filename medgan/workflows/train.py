"""One training, top to bottom: prepare, train, test, register; `medgan train` calls it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from medgan.cli.summary import Lines, show_facts, show_registered, show_tested
from medgan.cli.terminal import quiet_engines
from medgan.config import Config, flatten
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.distributed.cluster import cluster, is_given, machine, refuse_what_cannot_fit, resources_for
from medgan.distributed.fault_tolerance import Attempts
from medgan.distributed.worker import Start, is_out_of_memory, out_of_memory
from medgan.distributed.worker_group import Group, Resources, TrialFailed
from medgan.errors import Diverged, JobError
from medgan.locks import only_driver
from medgan.metrics.validation_metrics import overall_means
from medgan.paths import Place
from medgan.presets.by_name import configured
from medgan.provenance import attach, job_facts, run_facts, tags_from
from medgan.tasks import Task
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.slice_pictures import draw_slices
from medgan.tracking.tracker import Background
from medgan.training.autotune import notes, tags_of_speed
from medgan.training.build_networks import deepest_block, without_effect
from medgan.training.build_training import build_training, length_of, with_lpips
from medgan.training.checkpoint import BEST, PICTURES
from medgan.training.held_out import measure_on_test
from medgan.training.loop import best_epoch, save_epoch, train_epoch
from medgan.training.runtime import SingleProcess
from medgan.workflows.acceptance import (
    dataset_for,
    digest_of,
    features_of,
    goes_on,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_unfit_weights,
    refuse_unmeasured,
    refuse_what_cannot_train,
    with_weights,
)
from medgan.workflows.conclusion import label_of, register_generator, tags_of

EPOCH_LIMIT_S = 4 * 3600.0
RECONCILE_S = 120.0


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks for (see `medgan train --help`)."""

    task: Task
    place: Place
    preset: str = "medgan"
    data: str | None = None
    quick: bool = False
    workers: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)


class Trainee(Protocol):
    """A training that goes on epoch by epoch, here or on workers."""

    history: list[dict[str, float]]

    def advance(self) -> None:
        """Adds at least one epoch to the history."""

    def events_so_far(self) -> list[str]:
        """What a person should know, each once."""


class Here:
    """A training in this process."""

    def __init__(self, start: Start) -> None:
        self.config, self.folder = start.config, Path(start.folder)
        dataset = PreparedDataset.open(Path(start.dataset))
        with self._told_what_needs_less():
            self.training = build_training(start.config, dataset, SingleProcess(), folder=self.folder)
        self.history = self.training.state.history
        self.events = [f"continues after epoch {len(self.history)}, from its checkpoint"] if self.history else []
        self.events += notes(self.folder)

    def advance(self) -> None:
        """Trains, validates and saves an epoch."""
        with self._told_what_needs_less():
            train_epoch(self.training)
        save_epoch(self.training, self.folder)

    def events_so_far(self) -> list[str]:
        """Where it went on, once."""
        events, self.events = self.events, []
        return events

    @contextmanager
    def _told_what_needs_less(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise TrialFailed(
                "E-TRAIN-06", out_of_memory=out_of_memory(self.config, SingleProcess()), kind="out_of_memory"
            ) from None


def train(request: TrainRequest, console: Console) -> None:
    """Trains one configuration, tests it on held-out patients and registers it; the same request goes on.

    Raises:
        InputError: something asked for cannot be done; nothing was started, and nothing is left behind.
        JobError: the training failed.
        KeyboardInterrupt: stopped from outside; whole epochs are kept.
    """
    place = request.place
    with ExitStack() as stack:
        with nothing_left_behind(place.output):
            config, dataset, name = accepted(request, console)
            experiment = f"medgan/{label_of(dataset)}"
            tracking = MlflowStudy(place.tracking_uri, experiment, artifacts=place.artifacts, study=name, key=name)
        stack.enter_context(only_driver(place.lock_file(name), name))
        terminal = stack.enter_context(quiet_engines(place.log_file(name)))
        _run(request, config, dataset, stack.enter_context(tracking), terminal)


def accepted(request: TrainRequest, console: Console) -> tuple[Config, PreparedDataset, str]:
    """What is to be trained, on which data, and the training's name; what cannot be done is refused."""
    config = _configured(request)
    refuse_unfit_weights(config, deepest_block(config))
    refuse_unmeasured([config.metrics.select], config, request.task.target)
    dataset = dataset_for(request.data, request.task, size=config.data.size, place=request.place, console=console)
    refuse_too_few_slices(config, len(dataset.slices("train")))
    config = with_weights(config, deepest_block(config), request.place)
    return config, dataset, f"{request.preset}-{dataset.digest[:6]}-{digest_of(config)[:8]}"


def _configured(request: TrainRequest) -> Config:
    """Preset, made small where asked for, and the user's settings on top; what cannot be trained is refused."""
    config = with_lpips(configured(request.preset, request.overrides, small=request.quick or request.data is None))
    refuse_what_cannot_train(config, request.workers)
    if not is_given():
        resources_for(machine(), workers=request.workers, concurrent=None)
    return config


def _run(
    request: TrainRequest, config: Config, dataset: PreparedDataset, tracking: MlflowStudy, terminal: Console
) -> None:
    folder = request.place.checkpoints(tracking.study)
    unused = [path for path in without_effect(config) if path in request.overrides]
    show_facts(
        terminal,
        {
            "training": f"{tracking.study}, up to {_length(config)}",
            "data": described(dataset.manifest),
            "features": features_of(config),
            "workers": "one process" if request.workers == 1 else f"{request.workers} DDP processes",
            "output": f"{folder} (log: logs/{tracking.study}.log)",
            **({"no effect": f"{', '.join(unused)} on these networks"} if unused else {}),
        },
    )
    tracking.run.params({"preset": request.preset, **flatten(config)})
    tracking.run.tags({**tags_of(dataset), "medgan.preset": request.preset, "medgan.state": "running"})
    tracking.dataset(label_of(dataset), dataset.digest, profile=described(dataset.manifest))
    try:
        start, output = Start(config, str(dataset.state), str(folder)), request.place.output
        with trainee(start, workers=request.workers, output=output, terminal=terminal) as (training, resources):
            _tell(terminal, _keep_origin, tracking, config, dataset, resources)
            _epochs(training, config, tracking, terminal)
    except (Diverged, TrialFailed) as error:
        kind = getattr(error, "kind", "diverged")
        _tell(terminal, tracking.run.tags, {"medgan.state": kind, "medgan.reason": str(error)})
        raise JobError("E-TRAIN-07", study=tracking.study, kind=kind, error=error) from None
    except (KeyboardInterrupt, JobError):
        _tell(terminal, tracking.run.tags, {"medgan.state": "stopped"})
        raise
    _conclude(config, dataset, folder, training.history, tracking=tracking, place=request.place, terminal=terminal)


def _keep_origin(tracking: MlflowStudy, config: Config, dataset: PreparedDataset, resources: Resources) -> None:
    """What `medgan reproduce` needs to train the same again, and to say what is not the same."""
    facts = run_facts(
        job_facts(data_digest=dataset.digest, split_digest=dataset.manifest.split_digest),
        workers=resources.workers,
        threads=resources.cpus,
        device=resources.device,
        seed=config.train.seed,
    )
    tracking.run.tags(tags_from(facts))
    attach(tracking.run.artifact, config.model_dump(mode="json"), facts)


def _tell(terminal: Console, call: Callable[..., None], *arguments: Any) -> None:
    """Tells the tracking store something; one that is away is said, and ends nothing."""
    background = Background(terminal.print)
    background.do(call, *arguments)
    if not background.close(RECONCILE_S):
        terminal.print("MLflow did not take everything; the log names what it refused")


def _length(config: Config) -> str:
    minutes = f" or {config.train.minutes:g} min" if config.train.minutes else ""
    return f"{config.train.epochs} epochs{minutes}"


@contextmanager
def trainee(
    start: Start, *, workers: int, threads: int | None = None, output: Path, terminal: Console
) -> Iterator[tuple[Trainee, Resources]]:
    """The training, in this process, or on a worker group of its own; and what it runs on.

    Args:
        start: what is trained, on which data set, in which folder.
        workers: DDP processes; with 1, and no cluster at hand, it is this one.
        threads: CPU threads a process, at most what there is; None: what there is.
        output: the output folder.
        terminal: where the person is told that it takes a moment.
    """
    if workers == 1 and not is_given():
        with _at_most(threads) as used:
            yield Here(start), Resources(1, used, "gpu" if machine().gpus else "cpu")
        return
    scratch = output / "ray" / Path(start.folder).name
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        terminal.print("starting Ray ...")
        capacity = stack.enter_context(cluster())
        resources, _ = resources_for(capacity, workers=workers, concurrent=1)
        refuse_what_cannot_fit(resources, capacity)
        resources = replace(resources, cpus=min(threads or resources.cpus, resources.cpus))
        group = Group(resources, storage=scratch, limit_s=EPOCH_LIMIT_S)
        stack.callback(group.close)
        yield Attempts(group, start), resources


@contextmanager
def _at_most(threads: int | None) -> Iterator[int]:
    """Torch on so many threads of this process; how many it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads or before, before))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _epochs(training: Trainee, config: Config, tracking: MlflowStudy, terminal: Console) -> None:
    """Epoch after epoch until the length is reached; each is shown, and recorded in the background."""
    length, background = length_of(config), Background(terminal.print)
    for number, row in enumerate(training.history, start=1):
        background.do(tracking.run.metrics, row, number)
    try:
        with Lines(terminal, epochs=config.train.epochs) as lines:
            while length.progress(training.history) < 1:
                training.advance()
                for event in training.events_so_far():
                    lines.say(event)
                background.do(tracking.run.metrics, training.history[-1], len(training.history))
                lines.epoch(training.history, length.progress(training.history))
    finally:
        if not background.close(RECONCILE_S):
            terminal.print("MLflow did not take everything; the log names what it refused")


def _conclude(
    config: Config,
    dataset: PreparedDataset,
    folder: Path,
    history: Sequence[Mapping[str, float]],
    *,
    tracking: MlflowStudy,
    place: Place,
    terminal: Console,
) -> None:
    """Tests the best epoch's generator on held-out patients, and registers it as a version without an alias."""
    ours, floor = measure_on_test(config, folder / BEST, dataset, SingleProcess())
    epoch = best_epoch(history, config.metrics.select) + 1
    show_tested(terminal, ours, floor, floor_name=dataset.task.floor, epoch=epoch)
    run, means, task = tracking.run, overall_means(ours), dataset.task
    picture = folder / "validation.png"
    draw_slices(folder / PICTURES, picture, title="fixed validation slices", source=task.source, target=task.target)
    _tell(terminal, run.metrics, {f"test/{name}": value for name, value in means.items()}, 0)
    _tell(terminal, run.artifact, picture, "pictures")
    speed = tags_of_speed(folder)
    _tell(terminal, run.tags, {"medgan.state": "complete", "medgan.epochs": len(history), **speed})
    name = f"medgan-{label_of(dataset)}"
    version = register_generator(
        name, config, folder / BEST, dataset, run_id=run.run_id, uri=place.tracking_uri, test=ours
    )
    show_registered(terminal, name, version, picture=picture, place=place, goes_on=goes_on(config))
