"""Teaches a feature extractor on the target images: an autoencoder restores them, and its encoder is kept."""

import math
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from medgan.config import Config, GeneratorConfig, LossConfig, OptimConfig, TrainConfig, with_values
from medgan.data.dataset import PreparedDataset
from medgan.models.extractor_weights import save_encoder
from medgan.models.in_domain import Autoencoder
from medgan.training.build_networks import build_generator
from medgan.training.build_training import build_training
from medgan.training.checkpoint import BEST
from medgan.training.loop import Training, save_epoch, train_epoch
from medgan.training.runtime import SingleProcess

TAUGHT_IMAGES = 2400
"""A search or a training teaches its extractor with so many images: less than half a minute on two cores at 64 px."""
FEW_SLICES = 8
"""So many validation slices choose its best epoch; all of them would take as long as the training."""


def restoration() -> Config:
    """Returns the configuration of an autoencoder that restores images with noise and holes, by L1."""
    return Config(
        generator=GeneratorConfig(network="autoencoder", base_channels=32),
        loss=LossConfig(lambda_adversarial=0.0, lambda_l1=1.0),
        optim=OptimConfig(generator_lr=1e-3, beta1=0.9, schedule="cosine"),
        train=TrainConfig(epochs=20, batch_size=8),
    )


def short_restoration(dataset: PreparedDataset) -> Config:
    """Returns the same for a data set, with as many epochs as give `TAUGHT_IMAGES` images."""
    num_slices, config = len(dataset.slices("train")), restoration()
    values = {
        "data.size": dataset.manifest.size,
        "train.epochs": min(config.train.epochs, math.ceil(TAUGHT_IMAGES / num_slices)),
        "train.batch_size": min(config.train.batch_size, num_slices),
    }
    return with_values(config, values)


def teach(
    config: Config,
    dataset: PreparedDataset,
    folder: Path,
    out: Path,
    on_epoch: Callable[[Training], None] = lambda training: None,
    *,
    validated_on: int | None = None,
) -> None:
    """Trains the autoencoder on the training patients' targets, or goes on where it stopped, and writes its encoder.

    Args:
        config: as `restoration` gives it, with the size of the data set.
        folder: folder of the checkpoint.
        out: weights file for `extractor.network=in_domain`.
        on_epoch: called after every epoch.
        validated_on: number of validation slices by which the best epoch is chosen; None: all.

    Raises:
        Diverged: the training has no finite result.
    """
    training = build_training(config, dataset, SingleProcess(), folder=folder, given="target")
    if validated_on is not None:
        training.validation = training.validation.spread(validated_on)
    while training.length.progress(training.state.history) < 1:
        train_epoch(training)
        save_epoch(training, folder)
        on_epoch(training)
    network = build_generator(config)
    assert isinstance(network, Autoencoder), "a restoration has no other network"
    network.load_state_dict(load_file(folder / BEST))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_encoder(out, network.encoder)
