"""Trains a feature extractor on the user's own target images."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan.config import EXTRACTOR_BLOCKS, Config, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.distributed.worker import release_memory
from medgan.errors import Diverged, InputError, JobError
from medgan.locks import held, only_driver
from medgan.paths import Place
from medgan.tasks import Task
from medgan.training.build_training import with_lpips
from medgan.training.loop import Training
from medgan.training.teach_extractor import FEW_SLICES, restoration, short_restoration, teach
from medgan.workflows.events import Announcement, EpochDone, Note, Notify, advancing, ignore
from medgan.workflows.requirements import (
    dataset_for,
    digest_of,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_what_cannot_train,
)
from medgan.workflows.training_runner import epoch_done

TAUGHT_WAIT_S = 1800.0


@dataclass(frozen=True)
class FeaturesRequest:
    """Describes a training of features (see `medgan features --help`)."""

    task: Task
    place: Place
    data: str
    size: int
    out: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def learn_features(request: FeaturesRequest, notify: Notify = ignore) -> Path:
    """Trains the encoder on the training patients' targets and writes it; the same request goes on where it stopped.

    Returns:
        The weights file, for `extractor.network=in_domain`.

    Raises:
        InputError: something asked for cannot be done; nothing is left behind.
        JobError: the training diverged.
    """
    place = request.place
    with nothing_left_behind(place.output):
        config = with_lpips(with_values(restoration(), {"data.size": request.size, **request.overrides}))
        if config.generator.network != "autoencoder":
            raise InputError("E-FEATURES-01", network=config.generator.network)
        if request.out is not None and request.out.is_dir():
            raise InputError("E-FEATURES-02", out=request.out)
        refuse_what_cannot_train(config, 1)
        dataset = dataset_for(request.data, request.task, size=config.data.size, place=place, notify=notify)
        refuse_too_few_slices(config, len(dataset.slices("train")))
    name, out = _name_of(config, dataset), request.out or _file_of(config, dataset, place)
    with only_driver(place.lock_file(name), name):
        facts = {
            "features": f"of the targets, {config.train.epochs} epochs",
            "data": described(dataset.manifest),
            "to": str(out),
        }
        notify(Announcement(facts))
        _teach(config, dataset, place.checkpoints(name), out, notify)
    return out


def taught_weights(dataset: PreparedDataset, place: Place, notify: Notify = ignore) -> Path:
    """Returns the file of a feature extractor that was taught on the training targets; teaches it if there is none.

    It is taught as `medgan features` does, but shorter, and kept by the digest of the data set: the next search or
    training on the same data uses the same file.

    Raises:
        InputError: another process teaches it, and does not end in time.
        JobError: the training diverged.
    """
    config, out = short_restoration(dataset), taught_file(dataset, place)
    name = _name_of(config, dataset)
    if out.exists():
        return out
    notify(Note("Teaching a feature extractor on the training targets, once for this data set ..."))
    advance = advancing(notify, "epochs taught")
    lock_file = place.lock_file(name)
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with held(lock_file, f"teaching {name}", limit_s=TAUGHT_WAIT_S):
        if not out.exists():

            def count(epoch: EpochDone) -> None:
                advance(epoch.epoch, epoch.epochs)

            _teach(config, dataset, place.checkpoints(name), out, count, validated_on=FEW_SLICES)
            shutil.rmtree(place.checkpoints(name))
            release_memory()  # the workers need the GPU
    return out


def taught_file(dataset: PreparedDataset, place: Place) -> Path:
    """Returns where the weights are that `taught_weights` teaches on this data set."""
    return _file_of(short_restoration(dataset), dataset, place)


def refuse_what_cannot_be_taught(size: int, deepest: int) -> None:
    """Refuses images that the extractor cannot take, and blocks that it does not have.

    Args:
        size: rows and columns of a slice.
        deepest: the extractor block that is needed.
    """
    if deepest > EXTRACTOR_BLOCKS["in_domain"]:
        raise InputError("E-FEATURES-04", blocks=EXTRACTOR_BLOCKS["in_domain"], deepest=deepest)
    refuse_what_cannot_train(with_values(restoration(), {"data.size": size}), 1)


def _teach(
    config: Config,
    dataset: PreparedDataset,
    folder: Path,
    out: Path,
    notify: Notify,
    *,
    validated_on: int | None = None,
) -> None:
    def tell(training: Training) -> None:
        history = training.state.history
        notify(epoch_done(history, config.train.epochs, training.length.progress(history)))

    try:
        teach(config, dataset, folder, out, tell, validated_on=validated_on)
    except Diverged as error:
        raise JobError("E-FEATURES-03", error=error) from None


def _name_of(config: Config, dataset: PreparedDataset) -> str:
    return f"features-{dataset.digest[:6]}-{digest_of(config)[:8]}"


def _file_of(config: Config, dataset: PreparedDataset, place: Place) -> Path:
    return place.output / "weights" / f"{dataset.task.name}-{_name_of(config, dataset)}.safetensors"
