"""Trains by epochs: steps, a validation pass, a checkpoint."""

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgan.data.atomic_write import write_atomically
from medgan.data.augmentation import AUGMENTATIONS
from medgan.data.dataset import Batches, Slices, Unpaired
from medgan.errors import Diverged
from medgan.losses.gradient_shares import GradientNorms
from medgan.losses.objective import Objective
from medgan.metrics.validation_metrics import merit, overall_means, patient_means
from medgan.training.checkpoint import BEST, PICTURES, save_state, save_tensors
from medgan.training.feed import Feed, stored_on
from medgan.training.runtime import Runtime
from medgan.training.state import State, bare
from medgan.training.step import Updates, train_step
from medgan.training.validation import Perceptual, evaluate, fixed_pictures

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: min(1.0, 2 * (1 - progress)),
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
"""Maps the finished share of a training to a factor of the rates; linear: to 0 over the second half (Isola et al.)."""


@dataclass(frozen=True)
class Length:
    """Ends a training after `epochs`, or with the epoch that reaches `minutes`."""

    epochs: int
    minutes: float | None = None

    def progress(self, history: list[dict[str, float]]) -> float:
        """Returns the finished share of the training, between 0 and 1; it depends on the history alone."""
        done = len(history) / self.epochs
        if self.minutes is not None:
            done = max(done, sum(row["time/epoch_s"] for row in history) / (60 * self.minutes))
        return min(done, 1.0)


@dataclass
class Training:
    """Holds a configured training: its state, objective, data and runtime."""

    state: State
    objective: Objective
    train: Slices | Unpaired
    validation: Slices
    runtime: Runtime
    batch_size: int
    seed: int
    length: Length
    updates: Updates = Updates()
    schedule: str = "constant"
    augment: str = "none"
    perceptual: Perceptual | None = None
    select: str = "val/ssim"
    on_first_step: Callable[[], None] = lambda: None

    @cached_property
    def stored(self) -> tuple[Tensor, Tensor] | None:
        """Returns all training slices on the device where they fit, else None."""
        return stored_on(self.runtime.device, self.train)


def train_epoch(training: Training) -> dict[str, float]:
    """Trains one epoch and validates it, without saving; appends the row of metrics to the state's history.

    Batches of an epoch that do not fill a step are carried over to the next epoch.

    Raises:
        Diverged: a loss or an output is not finite, on any rank.
    """
    state, runtime = training.state, training.runtime
    began = time.perf_counter()
    progress = training.length.progress(state.history)
    _set_learning_rates(state, SCHEDULES[training.schedule](progress))
    losses = _mean_losses(training, training.objective.at(progress))
    trained = time.perf_counter()
    for network in dict.fromkeys((bare(state.generator), state.best_generator)):
        runtime.agree(network)
    rows = evaluate(state.best_generator, training.validation, runtime, perceptual=training.perceptual)
    metrics = {f"val/{name}": value for name, value in overall_means(patient_means(rows)).items()}
    times = runtime.mean({"time/train_s": trained - began, "time/epoch_s": time.perf_counter() - began})
    row = losses | metrics | times
    state.history.append(row)
    return row


def save_epoch(training: Training, folder: Path) -> None:
    """Saves the state, and the generator and its pictures when this epoch is the best so far.

    The state is saved last: after a crash the epoch is repeated, so the best generator is never older than the history.
    """
    state = training.state
    folder.mkdir(parents=True, exist_ok=True)
    if best_epoch(state.history, training.select) == state.epoch - 1:
        weights = state.best_generator.state_dict()
        save_tensors(folder / BEST, {key: value.contiguous() for key, value in weights.items()})
        pictures: dict[str, Any] = fixed_pictures(state.best_generator, training.validation, training.runtime.device)
        content = io.BytesIO()
        np.savez(content, **pictures)
        write_atomically(folder / PICTURES, content.getvalue())
    save_state(folder, state)


def best_epoch(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """Returns the index of the best epoch by a validation metric, the last of equals; NaN is never the best."""
    scores = [merit(metric, row.get(metric, math.nan)) for row in history]
    return max(
        range(len(history)), key=lambda index: (-math.inf if math.isnan(scores[index]) else scores[index], index)
    )


def _mean_losses(training: Training, objective: Objective) -> dict[str, float]:
    """Runs the epoch's steps; returns `loss/...` and `judgement/...` as means over steps and ranks.

    With them come `share/generator/<term>`, the share of each term in the gradient at the generator's output for the
    epoch's first batch, and the seconds spent waiting for data.
    """
    state, epoch = training.state, training.state.epoch
    first, last = (steps_before(training, number) for number in (epoch, epoch + 1))
    torch.manual_seed(hash((training.seed, epoch, training.runtime.rank)))
    feed = _feed(training, first * training.updates.batches)
    sums: dict[str, Tensor] = {}
    norms = GradientNorms(training.updates.accumulate * len(state.directions))
    training.on_first_step()
    for number in range(first, last):
        watched = norms.watching(objective) if number == first else objective
        for name, value in train_step(state, watched, feed, training.updates).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    mine = {_path(name): float(value) / (last - first) for name, value in sums.items()}
    shares = {f"share/generator/{name}": share for name, share in norms.shares(objective).items()}
    means = training.runtime.mean({**mine, **shares, "time/data_s": feed.waited_s})
    for name, mean in means.items():
        if not np.isfinite(mean):
            raise Diverged("E-TRAIN-02", name=name, mean=mean, epoch=epoch + 1)
    return means


def _set_learning_rates(state: State, factor: float) -> None:
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups if optimizer is not None else ():
            group["lr"] = factor * group["initial_lr"]


def steps_before(training: Training, epoch: int) -> int:
    """Returns the number of whole steps in the first `epoch` epochs."""
    per_epoch = len(training.train) // training.batch_size
    return epoch * per_epoch // training.updates.batches


def _feed(training: Training, start: int) -> Feed:
    runtime = training.runtime
    sampler = Batches(
        len(training.train), training.batch_size, seed=training.seed, rank=runtime.rank, size=runtime.size, start=start
    )
    augment = AUGMENTATIONS[training.augment]
    return Feed(training.train, sampler, device=runtime.device, augment=augment, stored=training.stored)


def _path(name: str) -> str:
    """Returns the name of a step's value in the history and in MLflow."""
    if name.startswith("judgement_"):
        return name.replace("_", "/")
    return f"loss/{name}" if name.startswith("discriminator") else f"loss/generator/{name}"
