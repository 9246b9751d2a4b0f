"""Trains one method: prepares data, trains, tests on held-out patients, registers the model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan.config import Config, flatten
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.distributed.cluster import is_given, resources_for
from medgan.distributed.resources import Resources, machine
from medgan.distributed.worker import Start
from medgan.distributed.worker_group import TrialFailed
from medgan.errors import Diverged, JobError
from medgan.locks import only_driver
from medgan.metrics.validation_metrics import Patients, overall_means
from medgan.paths import Place
from medgan.presets.by_name import configured
from medgan.provenance import attach, job_facts, run_facts, tags_from
from medgan.tasks import Task
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.slice_pictures import draw_slices
from medgan.tracking.tracker import Background
from medgan.training.autotune import tags_of_speed
from medgan.training.build_networks import deepest_block, without_effect
from medgan.training.build_training import length_of, with_lpips
from medgan.training.checkpoint import BEST, PICTURES
from medgan.training.frozen_features import feature_facts
from medgan.training.held_out import measure_on_test
from medgan.training.loop import best_epoch
from medgan.training.runtime import SingleProcess
from medgan.workflows.conclusion import label_of, register_generator, tags_of
from medgan.workflows.events import Announcement, EnginesStart, Note, Notify, ignore, say
from medgan.workflows.find_features import features_of, refuse_unfit_weights, with_weights
from medgan.workflows.requirements import (
    dataset_for,
    digest_of,
    goes_on,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_unmeasured,
    refuse_what_cannot_train,
)
from medgan.workflows.training_runner import Trainee, epoch_done, trainee

RECONCILE_S = 120.0
UNSENT = Note("Some results could not be sent to MLflow; the log file names them and says why.")


@dataclass(frozen=True)
class TrainRequest:
    """Describes a training (see `medgan train --help`)."""

    task: Task
    place: Place
    preset: str = "medgan"
    data: str | None = None
    quick: bool = False
    workers: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedModel:
    """Describes a model that was trained, tested on held-out patients and registered.

    Attributes:
        test: test patient -> metric -> value.
        floor: the same without a network.
        floor_name: what was taken as the output there.
        epoch: number of the epoch, from 1, whose generator is the model.
        picture: fixed validation slices, translated.
        goes_on: whether a longer training with the same settings would continue this one.
    """

    name: str
    version: str
    test: Patients
    floor: Patients
    floor_name: str
    epoch: int
    picture: Path
    goes_on: bool


def train(request: TrainRequest, notify: Notify = ignore) -> TrainedModel:
    """Trains one configuration, tests it on held-out patients and registers it; the same request goes on.

    Raises:
        InputError: something asked for cannot be done; nothing was started, and nothing is left behind.
        JobError: the training failed.
        KeyboardInterrupt: stopped from outside; whole epochs are kept.
    """
    place = request.place
    with ExitStack() as stack:
        with nothing_left_behind(place.output):
            config, dataset, name = accepted(request, notify)
            experiment = f"medgan/{label_of(dataset)}"
            tracking = MlflowStudy(place.tracking_uri, experiment, artifacts=place.artifacts, study=name, key=name)
        stack.enter_context(only_driver(place.lock_file(name), name))
        notify(EnginesStart(place.log_file(name)))
        return _run(request, config, dataset, stack.enter_context(tracking), notify)


def accepted(request: TrainRequest, notify: Notify = ignore) -> tuple[Config, PreparedDataset, str]:
    """Returns configuration, data set and name of the training; what cannot be done is refused."""
    config = _configured(request)
    refuse_unfit_weights(config, deepest_block(config))
    refuse_unmeasured([config.metrics.select], config, request.task.target)
    dataset = dataset_for(request.data, request.task, size=config.data.size, place=request.place, notify=notify)
    refuse_too_few_slices(config, len(dataset.slices("train")))
    config = with_weights(config, deepest_block(config), request.place, dataset, notify)
    return config, dataset, f"{request.preset}-{dataset.digest[:6]}-{digest_of(config)[:8]}"


def _configured(request: TrainRequest) -> Config:
    """Returns the preset, made small with `quick`, with the user's settings on top; refuses what cannot be trained."""
    config = with_lpips(configured(request.preset, request.overrides, small=request.quick or request.data is None))
    refuse_what_cannot_train(config, request.workers)
    if not is_given():
        resources_for(machine(), workers=request.workers, concurrent=None)
    return config


def _run(
    request: TrainRequest, config: Config, dataset: PreparedDataset, tracking: MlflowStudy, notify: Notify
) -> TrainedModel:
    folder = request.place.checkpoints(tracking.study)
    unused = [path for path in without_effect(config) if path in request.overrides]
    notify(
        Announcement(
            {
                "training": f"{tracking.study}, up to {_length(config)}",
                "data": described(dataset.manifest),
                "features": features_of(config),
                "workers": "one process" if request.workers == 1 else f"{request.workers} DDP processes",
                "output": f"{folder} (log: logs/{tracking.study}.log)",
                **({"no effect": f"{', '.join(unused)} here"} if unused else {}),
            }
        )
    )
    tracking.run.params({"preset": request.preset, **flatten(config)})
    tracking.run.tags({**tags_of(dataset), "medgan.preset": request.preset, "medgan.state": "running"})
    tracking.dataset(label_of(dataset), dataset.digest, profile=described(dataset.manifest))
    try:
        start, output = Start(config, str(dataset.state), str(folder)), request.place.output
        with trainee(start, workers=request.workers, output=output, notify=notify) as (training, resources):
            _record(notify, _keep_origin, tracking, config, dataset, resources)
            _epochs(training, config, tracking, notify)
    except (Diverged, TrialFailed) as error:
        kind = getattr(error, "kind", "diverged")
        _record(notify, tracking.run.tags, {"medgan.state": kind, "medgan.reason": str(error)})
        raise JobError("E-TRAIN-07", study=tracking.study, kind=kind, error=error) from None
    except (KeyboardInterrupt, JobError):
        _record(notify, tracking.run.tags, {"medgan.state": "stopped"})
        raise
    return _conclude(config, dataset, folder, training.history, tracking=tracking, place=request.place, notify=notify)


def _keep_origin(tracking: MlflowStudy, config: Config, dataset: PreparedDataset, resources: Resources) -> None:
    """Keeps what `medgan reproduce` needs to train the same again, and to say what is not the same."""
    facts = run_facts(
        job_facts(data_digest=dataset.digest, split_digest=dataset.manifest.split_digest),
        workers=resources.workers,
        threads=resources.cpus,
        device=resources.device,
        seed=config.train.seed,
        features=feature_facts(config),
    )
    tracking.run.tags(tags_from(facts))
    attach(tracking.run.artifact, config.model_dump(mode="json"), facts)


def _record(notify: Notify, call: Callable[..., None], *arguments: Any) -> None:
    """Sends something to MLflow; a store that does not answer is reported, and the training goes on."""
    background = Background(say(notify))
    background.do(call, *arguments)
    if not background.close(RECONCILE_S):
        notify(UNSENT)


def _length(config: Config) -> str:
    minutes = f" or {config.train.minutes:g} min" if config.train.minutes else ""
    return f"{config.train.epochs} epochs{minutes}"


def _epochs(training: Trainee, config: Config, tracking: MlflowStudy, notify: Notify) -> None:
    """Trains epochs until the length is reached; each is reported, and recorded in the background."""
    length, background = length_of(config), Background(say(notify))
    for number, row in enumerate(training.history, start=1):
        background.do(tracking.run.metrics, row, number)
    try:
        while length.progress(training.history) < 1:
            training.advance()
            for text in training.events_so_far():
                notify(Note(text))
            background.do(tracking.run.metrics, training.history[-1], len(training.history))
            notify(epoch_done(training.history, config.train.epochs, length.progress(training.history)))
    finally:
        if not background.close(RECONCILE_S):
            notify(UNSENT)


def _conclude(
    config: Config,
    dataset: PreparedDataset,
    folder: Path,
    history: Sequence[Mapping[str, float]],
    *,
    tracking: MlflowStudy,
    place: Place,
    notify: Notify,
) -> TrainedModel:
    """Tests the best epoch's generator on held-out patients, and registers it as a version without an alias."""
    ours, floor = measure_on_test(config, folder / BEST, dataset, SingleProcess())
    run, means, task = tracking.run, overall_means(ours), dataset.task
    picture = folder / "validation.png"
    draw_slices(folder / PICTURES, picture, title="fixed validation slices", source=task.source, target=task.target)
    _record(notify, run.metrics, {f"test/{name}": value for name, value in means.items()}, 0)
    _record(notify, run.artifact, picture, "pictures")
    speed = tags_of_speed(folder)
    _record(notify, run.tags, {"medgan.state": "complete", "medgan.epochs": len(history), **speed})
    name = f"medgan-{label_of(dataset)}"
    weights, uri = folder / BEST, place.tracking_uri
    version = register_generator(name, config, weights, dataset, run_id=run.run_id, uri=uri, test=ours)
    epoch = best_epoch(history, config.metrics.select) + 1
    return TrainedModel(name, version, ours, floor, dataset.task.floor, epoch, picture, goes_on(config))
