"""What a search will do and how long it should take, before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from medgan.build.objective import build_objective
from medgan.build.training import build_state, updates_of
from medgan.config import Config
from medgan.engine.runtime import SingleProcess
from medgan.engine.steps import Batch, train_step
from medgan.search.space import Asha, Move, Space

GROUP_START_S = 20.0


@dataclass(frozen=True)
class Forecast:
    """How long a search should take.

    Attributes:
        epoch_s: one epoch of a trial in the middle of the space, in seconds; none where it was not measured.
        epochs: mean epochs a trial, early stopping counted in.
        grace: epochs before which no trial is stopped.
    """

    epoch_s: float | None
    epochs: float
    grace: int

    def total_s(self, trials: int, concurrent: int) -> float | None:
        """Seconds for so many trials, or none."""
        if self.epoch_s is None:
            return None
        return GROUP_START_S + math.ceil(trials / concurrent) * self.epochs * self.epoch_s


def forecast(space: Space, base: Config, *, num_slices: int, threads: int) -> Forecast:
    """Measures one step of the middle of the space with so many CPU threads; with 0 the first epochs will tell."""
    epochs = expected_epochs(base.train.epochs, space.scheduler)
    if not threads:
        return Forecast(None, epochs, space.scheduler.grace_epochs)
    middle = space.pick(base, lambda _, move: middle_of(move))
    torch.set_num_threads(threads)
    steps = num_slices // middle.train.batch_size / updates_of(middle).batches
    return Forecast(steps * step_s(middle), epochs, space.scheduler.grace_epochs)


def expected_epochs(epochs: int, asha: Asha) -> float:
    """Mean epochs of a trial when every rung keeps one in `reduction_factor`."""
    total, alive, rung, reached = 0.0, 1.0, asha.grace_epochs, 0
    while rung < epochs:
        total += alive * (rung - reached)
        alive, reached, rung = alive / asha.reduction_factor, rung, rung * asha.reduction_factor
    return total + alive * (epochs - reached)


def middle_of(move: Move) -> Any:
    """The middle of a range, on its own scale; the first of choices."""
    if move.choice:
        return move.choice[0]
    low, high = move.ends
    if move.integer:
        return (low + high) // 2
    return math.sqrt(low * high) if move.log else (low + high) / 2


def step_s(config: Config) -> float:
    """Seconds of one training step on the CPU: of the second, or, where the first is slow, of that one."""
    runtime = SingleProcess(torch.device("cpu"))
    state, objective = build_state(config, runtime), build_objective(config)
    elapsed = 0.0
    for _ in range(2):
        began = time.perf_counter()
        train_step(state, objective, _noise(config), updates_of(config))
        elapsed = time.perf_counter() - began
        if elapsed > 5:
            break
    return elapsed


def _noise(config: Config) -> Iterator[Batch]:
    shape = (config.train.batch_size, 1, config.data.size, config.data.size)
    while True:
        yield torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1
