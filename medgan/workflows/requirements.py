"""Prepares the data of a request, and refuses what cannot be trained on it; all of it before any engine starts."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medgan.config import Config, flatten
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import FILE_NAME
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.data.remote import fetched
from medgan.errors import InputError
from medgan.locks import is_held
from medgan.metrics.validation_metrics import measured
from medgan.paths import Place, is_remote
from medgan.tasks import Image, Task
from medgan.training.build_networks import deepest_block, refuse_misfit
from medgan.training.build_training import updates_of
from medgan.workflows.events import Note, Notify, advancing, ignore

YOUNGER = ("train.accumulate", "train.speed")
"""These settings are younger than the first trainings: at their defaults they do not change a training's name."""


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
    if not deepest_block(config) or config.extractor.scale == "as_is":  # as before there was a scale
        del content["extractor.scale"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
