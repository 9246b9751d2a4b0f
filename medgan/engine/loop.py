"""Training: an epoch of steps, a validation pass, a checkpoint; and again."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medgan.data.atomic import write_atomically
from medgan.data.dataset import Batches, Slices
from medgan.engine.checkpoint import BEST, PICTURES, save_state, save_tensors
from medgan.engine.evaluate import evaluate, fixed_pictures
from medgan.engine.runtime import Runtime
from medgan.engine.state import State, bare
from medgan.engine.steps import Batch, medgan_step
from medgan.errors import Diverged
from medgan.losses.objective import Objective
from medgan.metrics.table import overall_means, patient_means

OBJECTIVE = "val/ssim"


@dataclass
class Training:
    """One configured training: what changes, what it minimizes, on which data, where."""

    state: State
    objective: Objective
    train: Slices
    validation: Slices
    runtime: Runtime
    batch_size: int
    generator_steps: int
    seed: int
    on_first_step: Callable[[], None] = lambda: None


def train_epoch(training: Training) -> dict[str, float]:
    """One epoch and its validation, without saving; the row of metrics is appended to the state's history.

    What is left of an epoch's batches when they do not fill a step is carried over to the next.

    Raises:
        Diverged: a loss or an output is not finite, on any rank.
    """
    began = time.perf_counter()
    losses = _mean_losses(training, training.state.epoch)
    trained = time.perf_counter()
    rows = evaluate(bare(training.state.generator), training.validation, training.runtime)
    metrics = {f"val/{name}": value for name, value in overall_means(patient_means(rows)).items()}
    row = losses | metrics | {"time/train_s": trained - began, "time/epoch_s": time.perf_counter() - began}
    training.state.history.append(row)
    return row


def save_epoch(training: Training, folder: Path) -> None:
    """Checkpoints the state; keeps the generator and its pictures when this epoch is the best so far.

    The state comes last: a crash before it repeats the epoch, so the best generator is never older than the history.
    """
    state = training.state
    folder.mkdir(parents=True, exist_ok=True)
    values = [row[OBJECTIVE] for row in state.history]
    if values[-1] == max(values):
        save_tensors(
            folder / BEST, {key: value.contiguous() for key, value in bare(state.generator).state_dict().items()}
        )
        pictures: dict[str, Any] = fixed_pictures(bare(state.generator), training.validation, training.runtime.device)
        content = io.BytesIO()
        np.savez(content, **pictures)
        write_atomically(folder / PICTURES, content.getvalue())
    save_state(folder, state)


def _mean_losses(training: Training, epoch: int) -> dict[str, float]:
    """Runs the epoch's steps; returns `loss/...` means over steps and ranks."""
    first, last = (steps_before(training, number) for number in (epoch, epoch + 1))
    torch.manual_seed(hash((training.seed, epoch, training.runtime.rank)))
    batches = _batches(training, first * training.generator_steps)
    sums: dict[str, Tensor] = {}
    for _ in range(first, last):
        for name, value in medgan_step(
            training.state, training.objective, batches, generator_steps=training.generator_steps
        ).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    mine = {_loss_path(name): float(value) / (last - first) for name, value in sums.items()}
    means = training.runtime.mean(mine)
    for name, mean in means.items():
        if not np.isfinite(mean):
            raise Diverged(f"{name} is {mean} in epoch {epoch + 1}")
    return means


def steps_before(training: Training, epoch: int) -> int:
    """Whole steps in the first `epoch` epochs."""
    per_epoch = len(training.train) // training.batch_size
    return epoch * per_epoch // training.generator_steps


def _batches(training: Training, start: int) -> Iterator[Batch]:
    runtime = training.runtime
    sampler = Batches(
        len(training.train), training.batch_size, seed=training.seed, rank=runtime.rank, size=runtime.size, start=start
    )
    loader = DataLoader(training.train, batch_sampler=sampler, pin_memory=runtime.device.type == "cuda")
    for number, (source, target) in enumerate(loader):
        if number == 0:
            training.on_first_step()
        yield source.to(runtime.device, non_blocking=True), target.to(runtime.device, non_blocking=True)


def _loss_path(name: str) -> str:
    return "loss/discriminator" if name == "discriminator" else f"loss/generator/{name}"
