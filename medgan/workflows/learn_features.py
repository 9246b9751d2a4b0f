"""Trains a feature extractor on the user's own target images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from medgan.config import Config, GeneratorConfig, LossConfig, OptimConfig, TrainConfig, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.errors import Diverged, InputError, JobError
from medgan.locks import only_driver
from medgan.models.extractor_weights import save_encoder
from medgan.models.in_domain import Autoencoder
from medgan.paths import Place
from medgan.tasks import Task
from medgan.training.build_networks import build_generator
from medgan.training.build_training import build_training, with_lpips
from medgan.training.checkpoint import BEST
from medgan.training.loop import save_epoch, train_epoch
from medgan.training.runtime import SingleProcess
from medgan.workflows.acceptance import (
    dataset_for,
    digest_of,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_what_cannot_train,
)
from medgan.workflows.events import Announcement, Notify, ignore
from medgan.workflows.training_runner import epoch_done


@dataclass(frozen=True)
class FeaturesRequest:
    """Describes a training of features (see `medgan features --help`)."""

    task: Task
    place: Place
    data: str
    size: int
    out: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def restoration() -> Config:
    """Returns the configuration of an autoencoder that restores images with noise and holes, by L1."""
    return Config(
        generator=GeneratorConfig(network="autoencoder", base_channels=32),
        loss=LossConfig(lambda_adversarial=0.0, lambda_l1=1.0),
        optim=OptimConfig(generator_lr=1e-3, beta1=0.9, schedule="cosine"),
        train=TrainConfig(epochs=20, batch_size=8),
    )


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
    name = f"features-{dataset.digest[:6]}-{digest_of(config)[:8]}"
    out = request.out or place.output / "weights" / f"{request.task.name}-{name}.safetensors"
    with only_driver(place.lock_file(name), name):
        facts = {
            "features": f"of the targets, {config.train.epochs} epochs",
            "data": described(dataset.manifest),
            "to": str(out),
        }
        notify(Announcement(facts))
        folder = place.checkpoints(name)
        _train(config, dataset, folder, notify)
        _write(config, folder, out)
    return out


def _train(config: Config, dataset: PreparedDataset, folder: Path, notify: Notify) -> None:
    training = build_training(config, dataset, SingleProcess(), folder=folder, given="target")
    history, length = training.state.history, training.length
    try:
        while length.progress(history) < 1:
            train_epoch(training)
            save_epoch(training, folder)
            notify(epoch_done(history, config.train.epochs, length.progress(history)))
    except Diverged as error:
        raise JobError("E-FEATURES-03", error=error) from None


def _write(config: Config, folder: Path, out: Path) -> None:
    network = build_generator(config)
    assert isinstance(network, Autoencoder), "checked when the request was"
    network.load_state_dict(load_file(folder / BEST))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_encoder(out, network.encoder)
