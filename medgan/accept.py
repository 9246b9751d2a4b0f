"""What a job checks and gets ready before any engine starts; what cannot be done is refused here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from medgan.build.networks import deepest_block, refuse_misfit
from medgan.build.training import updates_of
from medgan.config import Config, flatten, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import FILE_NAME
from medgan.data.phantoms import write_phantoms
from medgan.data.prepare import Request
from medgan.data.remote import fetched, is_remote
from medgan.errors import InputError
from medgan.lock import is_held
from medgan.models.extractor import load_extractor
from medgan.models.weights import download_weights
from medgan.place import Place
from medgan.prepared import prepared
from medgan.tasks import Task


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


def dataset_for(data: str | None, task: Task, *, size: int, place: Place, console: Console) -> PreparedDataset:
    """The data set in a folder or at a URL, or made of the images there; of phantoms where nothing is given."""
    if data is None:
        console.print("No --data: making phantom patients.")
        source = write_phantoms(place.output / "phantoms" / task.name, task=task.name)
    elif is_remote(data):
        source = fetched(data, place.datasets / "remote")
    else:
        source = Path(data).expanduser().absolute()
    if (source / FILE_NAME).exists():
        dataset = PreparedDataset.open(source)
        wanted, there = f"{task.name} at {size} px", f"{dataset.task.name} at {dataset.manifest.size} px"
        if there != wanted:
            raise InputError(f"{source}: expected a data set for {wanted} (data.size); it is for {there}")
        return dataset
    return PreparedDataset.open(prepared(Request(source, task, size, place.datasets), console))


def with_weights(config: Config, deepest: int, place: Place) -> Config:
    """The configuration with its extractor's weights at hand, in a file every worker can read.

    Args:
        config: what is asked for.
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
    """Refuses a weights file that lacks what is needed, before anything is prepared; a download waits until then."""
    weights = config.extractor.weights
    if deepest and weights not in ("random", "download"):
        load_extractor(config.extractor.network, str(Path(weights).expanduser()), deepest)


def refuse_what_cannot_train(config: Config, workers: int) -> None:
    """Refuses a batch that the workers cannot share, and networks that the images do not fit."""
    if config.train.batch_size % workers:
        raise InputError(
            f"train.batch_size: expected a multiple of the {workers} workers; got {config.train.batch_size}"
        )
    refuse_misfit(config, slices=config.train.batch_size // workers)


def refuse_too_few_slices(config: Config, num_slices: int) -> None:
    """Refuses a data set in which an epoch would hold no step."""
    batches = updates_of(config).batches
    if num_slices < config.train.batch_size * batches:
        raise InputError(
            f"train.batch_size: {batches} batches must fit into the {num_slices} training slices, so that an epoch "
            f"holds a step; got {config.train.batch_size}"
        )


def goes_on(config: Config) -> bool:
    """Whether a longer training begins as a shorter one: nothing in it depends on the share that is done."""
    return config.optim.schedule == "constant" and config.loss.cycle_share is None


def digest_of(config: Config) -> str:
    """Of all that decides the result; not of the length, where a longer training goes on from a shorter one."""
    length = ("train.epochs", "train.minutes") if goes_on(config) else ()
    content = {
        path: value for path, value in flatten(config).items() if path not in length and not path.startswith("metrics.")
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def features_of(config: Config) -> str:
    """Which feature extractor the losses use, for a person."""
    return f"{config.extractor.network}, {config.extractor.weights} weights" if deepest_block(config) else "none"
