"""How long a search should take: one step or one convolution timed, early stopping counted in."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medgan.config import Config
from medgan.search.parameters import Move
from medgan.search.space import Scheduler, Space
from medgan.training.build_training import random_step, updates_of
from medgan.training.memory_estimate import estimate

GROUP_START_S = 20.0
MEASURED_STEP_S = 0.4
"""A step that should take longer is estimated, not made: a plan shall take seconds."""
SHARE_OF_CONVOLUTION = 0.5
"""Speed of a whole step, in FLOP/s, over that of a large convolution: norms and activations take their time."""


@dataclass(frozen=True)
class Forecast:
    """How long a search should take.

    Attributes:
        epoch_s: the training of an epoch of a trial in the middle of the space, in seconds; none where it is not known.
        epochs: mean epochs a trial, early stopping counted in.
        grace: epochs before which no trial is stopped.
        basis: how `epoch_s` was found: "measured", or "estimated" from FLOPs and one timed convolution.
        limit_s: a trial takes no longer, but for the rest of its last epoch.
    """

    epoch_s: float | None
    epochs: float
    grace: int
    basis: str = "measured"
    limit_s: float = math.inf

    @property
    def trial_s(self) -> float | None:
        """Seconds of a trial, or none."""
        if self.epoch_s is None:
            return self.limit_s if math.isfinite(self.limit_s) else None
        return min(self.epochs * self.epoch_s, self.limit_s)

    def total_s(self, trials: int, concurrent: int) -> float | None:
        """Seconds for so many trials, or none."""
        return None if self.trial_s is None else GROUP_START_S + math.ceil(trials / concurrent) * self.trial_s


def forecast(space: Space, base: Config, *, num_slices: int, threads: int, workers: int = 1) -> Forecast:
    """Times the middle of the space: a step where that is quick, else a convolution of known FLOPs.

    Args:
        space: what moves.
        base: what it moves in.
        num_slices: of the training patients.
        threads: CPU threads of all workers together; 0: on this machine's GPU, and where there is none, the first
            epochs will tell.
        workers: that share a batch.
    """
    epochs, grace = expected_epochs(base.train.epochs, space.scheduler), space.scheduler.grace_epochs
    limit_s = 60 * base.train.minutes if base.train.minutes else math.inf
    on_gpu = not threads and torch.cuda.is_available()
    if not threads and not on_gpu:
        return Forecast(None, epochs, grace, limit_s=limit_s)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        speed = SHARE_OF_CONVOLUTION * flops_per_s(torch.device("cuda" if on_gpu else "cpu"))
        found = []
        for config in middles(space, base):
            steps = num_slices // config.train.batch_size / updates_of(config).batches
            flops = estimate(config, workers=workers, device="gpu" if on_gpu else "cpu").flops_per_step
            guessed_s = flops * (1 if on_gpu else workers) / speed
            measured = not on_gpu and guessed_s <= MEASURED_STEP_S
            found.append((steps * (step_s(config) if measured else guessed_s), measured))
    finally:
        torch.set_num_threads(before)
    basis = "measured" if all(measured for _, measured in found) else "estimated"
    epoch_s = statistics.fmean(seconds for seconds, _ in found)
    return Forecast(epoch_s, epochs, grace, basis, limit_s)


def expected_epochs(epochs: int, scheduler: Scheduler) -> float:
    """Mean epochs of a trial.

    asha: every rung keeps one in `reduction_factor`; median: half of the trials end with the grace; none: all run on.
    """
    if scheduler.kind == "none":
        return float(epochs)
    if scheduler.kind == "median":
        return (min(scheduler.grace_epochs, epochs) + epochs) / 2
    total, alive, rung, reached = 0.0, 1.0, scheduler.grace_epochs, 0
    while rung < epochs:
        total += alive * (rung - reached)
        alive, reached, rung = alive / scheduler.reduction_factor, rung, rung * scheduler.reduction_factor
    return total + alive * (epochs - reached)


def middles(space: Space, base: Config) -> list[Config]:
    """The trial in the middle of a space, for each method that moves."""
    return space.every_method(base, middle_of)


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
    step, elapsed = random_step(config, torch.device("cpu")), 0.0
    for _ in range(2):
        began = time.perf_counter()
        step()
        elapsed = time.perf_counter() - began
        if elapsed > 5:
            break
    return elapsed


def flops_per_s(device: torch.device) -> float:
    """Floating-point operations a second of a convolution and its gradients, as large as a network's largest."""
    convolution = nn.Conv2d(128, 128, 3, padding=1).to(device)
    slices = 64 if device.type == "cuda" else 1
    image = torch.zeros(slices, 128, 64, 64, device=device, requires_grad=True)
    flops = 3 * 2 * slices * 128 * 128 * 9 * 64 * 64
    fastest = math.inf
    for _ in range(3):
        began = time.perf_counter()
        convolution(image).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return flops / fastest
