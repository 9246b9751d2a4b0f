"""Measures how long a training step waits for its batches: read, augmented and copied to the device."""

import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from medgan.benchmark.measurements import Measurement, spread_of
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.timing import LEAST_ROUNDS, described, rate, ratio, seconds
from medgan.config import Config
from medgan.data.augmentation import AUGMENTATIONS
from medgan.data.dataset import Batches
from medgan.presets.by_name import configured
from medgan.training.build_training import build_training
from medgan.training.feed import Feed
from medgan.training.loop import Training
from medgan.training.runtime import SingleProcess
from medgan.training.step import Batch, train_step

NUM_BLOCKS = 2


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures MedGAN at the quick setting; in full on a GPU, also as published, with random features."""
    rows = of(quick_config(), device, limit_s=6.0 if quick else 30.0)
    if not quick and device.type == "cuda":
        published = configured("medgan", {"extractor.weights": "random", "train.augment": "flip_shift"})
        rows += of(published, device, limit_s=30.0)
    return rows


def quick_config() -> Config:
    """Returns the quick preset with as many blocks as in the part `step`."""
    return configured("medgan", {"generator.num_blocks": NUM_BLOCKS, "extractor.weights": "random"}, small=True)


def of(config: Config, device: torch.device, *, limit_s: float) -> list[Measurement]:
    """Compares the slices a second that the data provide and a step consumes; measures the waiting share of a step."""
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as folder:
        dataset = prepared_phantoms(Path(folder), size=config.data.size)
        training = build_training(config, dataset, SingleProcess(device), folder=Path(folder) / "trial")
        waiting, stepping = times(training, limit_s=limit_s)
    slices = training.updates.batches * training.batch_size
    row = partial(
        Measurement,
        part="data",
        settings=f"{config.data.size} px, {config.generator.num_blocks} blocks, batch {training.batch_size}, "
        f"augmented by {config.train.augment}",
        device=described(device),
    )
    shares = [100 * wait / (wait + step) for wait, step in zip(waiting, stepping, strict=True)]
    consumed = "what a step consumes"
    return [
        row(
            figure="waiting, of a step",
            unit="%",
            value=spread_of(shares),
            wanted="<= 2 %",
            note="as if nothing of it overlapped with the step before",
        ),
        row(
            figure="batches ready",
            unit="slices/s",
            value=rate(slices, waiting),
            ratio=ratio(stepping, waiting),
            against=consumed,
        ),
        row(figure=consumed, unit="slices/s", value=rate(slices, stepping)),
    ]


def times(training: Training, *, limit_s: float) -> tuple[list[float], list[float]]:
    """Returns the seconds of each step until its batches are on the device, and of the step itself."""
    device = training.runtime.device
    feed = Feed(
        training.train,
        Batches(len(training.train), training.batch_size, seed=training.seed),
        device=device,
        augment=AUGMENTATIONS[training.augment],
        stored=training.stored,
    )
    waiting: list[float] = []
    stepping: list[float] = []
    batches: list[Batch] = []

    def fetch() -> None:
        batches[:] = [next(feed) for _ in range(training.updates.batches)]

    def step() -> None:
        train_step(training.state, training.objective, iter(batches), training.updates)

    fetch()
    step()
    end = time.perf_counter() + limit_s
    while len(waiting) < LEAST_ROUNDS or time.perf_counter() < end:
        waiting.append(seconds(fetch, device))
        stepping.append(seconds(step, device))
    return waiting, stepping
