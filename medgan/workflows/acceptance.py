"""Checks a request and prepares its data before any engine starts; what cannot be done is refused here."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan.config import Config, at_least_one, flatten, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import FILE_NAME
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.data.remote import fetched
from medgan.distributed.cluster import is_given, machine, resources_for
from medgan.errors import InputError
from medgan.locks import is_held
from medgan.metrics.validation_metrics import measured
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import download_weights
from medgan.paths import Place, is_remote, redacted
from medgan.search.budget import limited
from medgan.search.objectives import COSTS
from medgan.search.space import Budget, Space
from medgan.search.space_yaml import read_space
from medgan.search.study import PRESET, Identity, Study, open_study, queued
from medgan.tasks import Image, Task
from medgan.training.build_networks import deepest_block, refuse_misfit
from medgan.training.build_training import updates_of, with_lpips
from medgan.workflows.events import Note, Notify, advancing, ignore

YOUNGER = ("train.accumulate", "train.speed")
"""These settings are younger than the first trainings: at their defaults they do not change a training's name."""


@dataclass(frozen=True)
class SearchRequest:
    """Describes a search; None means the default (see `medgan tune --help`)."""

    task: Task
    place: Place
    data: str | None = None
    space: str | Space | None = None
    study: str | None = None
    trials: int | None = None
    workers: int | None = None
    concurrent: int | None = None
    max_gpu_hours: float | None = None
    max_hours: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """Holds a request that was checked, with its data prepared; nothing is stored and no engine runs yet."""

    request: SearchRequest
    space_name: str
    space: Space
    base: Config
    target: int
    budget: Budget
    dataset: PreparedDataset

    @property
    def identity(self) -> Identity:
        """Returns what the study is about."""
        return Identity(self.request.task.name, self.dataset.digest, self.space.digest(self.request.overrides))

    @property
    def name(self) -> str:
        """Returns the name of the study."""
        return self.request.study or self.identity.default_name()

    def open_study(self) -> Study:
        """Returns the study, created if there is none, with the first trials of the search in its queue.

        Raises:
            InputError: more of a grid waits in it than is asked for now, and would be trained in its place.
        """
        study = open_study(
            self.request.place.study_uri,
            self.name,
            self.identity,
            goals=self.space.goals,
            sampler=self.space.sampler,
            seed=self.base.train.seed,
        )
        study.set_user_attr(PRESET, self.space.preset)
        points = self.space.beginnings(self.base)[: self.target]
        if self.space.sampler == "grid" and (more := [point for point in queued(study) if point not in points]):
            what = ", ".join(f"{setting}={value}" for setting, value in more[0].items())
            raise InputError("E-REQUEST-01", name=self.name, what=what)
        for point in points:
            study.enqueue_trial(point, skip_if_exists=True)
        return study


def accept(request: SearchRequest, notify: Notify = ignore) -> Accepted:
    """Refuses everything that can be refused, the cheapest checks first; prepares the data."""
    space_name, space = _space_of(request)
    target = _target(space, request.trials)
    budget = limited(space.budget, gpu_hours=request.max_gpu_hours, hours=request.max_hours)
    _refuse_unfit_name(request.study)
    if request.place.study_uri == request.place.tracking_uri:
        raise InputError("E-REQUEST-03", study_uri=redacted(request.place.study_uri))
    base = with_lpips(space.base(request.overrides))
    asked = [*(goal.metric for goal in space.goals), *(limit.metric for limit in space.limits)]
    measured_ones = [metric for metric in asked if metric not in COSTS]
    refuse_unmeasured(measured_ones, base, request.task.target)
    corners = space.corners(base)
    deepest = max(map(deepest_block, corners))
    if not is_given():
        resources, _ = resources_for(machine(), workers=request.workers, concurrent=request.concurrent)
        for corner in corners:
            refuse_what_cannot_train(corner, resources.workers)
    refuse_unfit_weights(base, deepest)
    dataset = dataset_for(request.data, request.task, size=base.data.size, place=request.place, notify=notify)
    for corner in corners:
        refuse_too_few_slices(corner, len(dataset.slices("train")))
    base = with_weights(base, deepest, request.place)
    return Accepted(request, space_name, space, base, target, budget, dataset)


def _space_of(request: SearchRequest) -> tuple[str, Space]:
    """Returns the search space and its name; refuses settings that the space moves."""
    named = request.space or (request.task.name if request.data else request.task.quick_space)
    if isinstance(named, str):
        name, space = named, read_space(named, request.overrides)
    else:
        name, space = str(named.sampler), named.with_overrides(request.overrides)
    for setting in space.search:
        if setting in request.overrides:
            raise InputError("E-REQUEST-02", setting=setting, space_name=name)
    return name, space


def _target(space: Space, trials: int | None) -> int:
    """Returns how many finished trials are wanted: as requested, else as the space says, else all of a grid."""
    most = len(space.grid()) if space.sampler == "grid" else None
    if trials is not None and most is not None and trials > most:
        raise InputError("E-REQUEST-04", most=most, trials=trials)
    if trials is not None:
        return at_least_one("--trials", trials)
    if most is None:
        return space.trials
    return min(space.trials, most) if "trials" in space.model_fields_set else most


def _refuse_unfit_name(name: str | None) -> None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError("E-REQUEST-05", name=name)


@contextmanager
def nothing_left_behind(output: Path) -> Iterator[None]:
    """Removes the output folder again when the request is refused, was not there before, and nobody else uses it."""
    there = output.exists()
    try:
        yield
    except InputError:
        if not there and not any(is_held(lock) for lock in output.rglob("*.lock")):
            shutil.rmtree(output, ignore_errors=True)
        raise


def dataset_for(data: str | None, task: Task, *, size: int, place: Place, notify: Notify = ignore) -> PreparedDataset:
    """Returns the data set in a folder or at a URL, or prepares the images there; without `data`, phantoms."""
    if data is None:
        notify(Note("No --data: making phantom patients."))
        source = write_phantoms(place.output / "phantoms" / task.name, task=task.name)
    elif is_remote(data):
        source = fetched(data, place.datasets / "remote")
    else:
        source = Path(data).expanduser().absolute()
    if (source / FILE_NAME).exists():
        dataset = PreparedDataset.open(source)
        wanted, there = f"{task.name} at {size} px", f"{dataset.task.name} at {dataset.manifest.size} px"
        if there != wanted:
            raise InputError("E-REQUEST-06", source=source, wanted=wanted, there=there)
        return dataset
    request = PrepareRequest(source, task, size, place.datasets)
    return PreparedDataset.open(prepare(request, advancing(notify, "patients prepared")))


def with_weights(config: Config, deepest: int, place: Place) -> Config:
    """Returns the configuration with its extractor's weights in a file that every worker can read.

    Args:
        deepest: the extractor block that is needed; 0: none is.
        place: where a download is kept.

    Raises:
        InputError: the weights cannot be had, or are not these.
    """
    network, weights = config.extractor.network, config.extractor.weights
    if not deepest or weights == "random":
        return config
    if weights == "download":
        path = download_weights(place.output / "weights", network=network)
    else:
        path = Path(weights).expanduser().absolute()
    load_extractor(network, str(path), deepest)
    return with_values(config, {"extractor.weights": str(path)})


def refuse_unfit_weights(config: Config, deepest: int) -> None:
    """Refuses a weights file that lacks what is needed, before any data is prepared; a download comes later."""
    weights = config.extractor.weights
    if deepest and weights not in ("random", "download"):
        load_extractor(config.extractor.network, str(Path(weights).expanduser()), deepest)


def refuse_what_cannot_train(config: Config, workers: int) -> None:
    """Refuses a batch that the workers cannot share, and networks that the images do not fit."""
    if config.train.batch_size % workers:
        raise InputError("E-REQUEST-07", workers=workers, batch_size=config.train.batch_size)
    refuse_misfit(config, slices=config.train.batch_size // workers)


def refuse_unmeasured(asked: Iterable[str], config: Config, image: Image) -> None:
    """Raises InputError for metrics not measured for this target at this size; the message names those that are."""
    known = measured(image, size=config.data.size, with_lpips=config.metrics.lpips != "none")
    for metric in asked:
        if not metric.startswith("val/") or metric.removeprefix("val/") not in known:
            names = ", ".join(f"val/{name}" for name in known)
            raise InputError("E-REQUEST-08", metric=metric, names=names)


def refuse_too_few_slices(config: Config, num_slices: int) -> None:
    """Refuses a data set in which an epoch would hold no step."""
    batches = updates_of(config).batches
    if num_slices < config.train.batch_size * batches:
        raise InputError("E-REQUEST-09", batches=batches, num_slices=num_slices, batch_size=config.train.batch_size)


def goes_on(config: Config) -> bool:
    """Returns whether a longer training begins as a shorter one: nothing in it depends on the share that is done."""
    return config.optim.schedule == "constant" and config.loss.cycle_share is None


def digest_of(config: Config) -> str:
    """Returns a digest of all that decides the result; the length counts only where it changes the epochs before."""
    length = ("train.epochs", "train.minutes") if goes_on(config) else ()
    usual = flatten(Config())
    content = {
        path: value
        for path, value in flatten(config).items()
        if path not in (*length, "generator.recompute")
        and not path.startswith("metrics.lpips")
        and (path not in YOUNGER or value != usual[path])
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def features_of(config: Config) -> str:
    """Returns, for a person, which feature extractor the losses use."""
    return f"{config.extractor.network}, {config.extractor.weights} weights" if deepest_block(config) else "none"
