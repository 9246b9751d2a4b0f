"""Forecasts how long a search takes, from one timed step or convolution; early stopping is included."""

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
"""A step that should take longer is estimated and not run, so that a plan takes seconds."""
SHARE_OF_CONVOLUTION = 0.5
"""A whole step reaches this share of a large convolution's FLOP/s, since norms and activations also take time."""


@dataclass(frozen=True)
class Forecast:
    """Describes how long a search should take.

    Attributes:
        epoch_s: training time of one epoch in the middle of the space, in seconds; None: not known.
        epochs: mean epochs of a trial, with early stopping.
        grace: number of epochs before early stopping begins.
        basis: source of `epoch_s`: "measured", or "estimated" from FLOPs and one timed convolution.
        limit_s: longest time of a trial, without the rest of its last epoch.
    """

    epoch_s: float | None
    epochs: float
    grace: int
    basis: str = "measured"
    limit_s: float = math.inf

    @property
    def trial_s(self) -> float | None:
        """Returns the seconds of one trial; None if not known."""
        if self.epoch_s is None:
            return self.limit_s if math.isfinite(self.limit_s) else None
        return min(self.epochs * self.epoch_s, self.limit_s)

    def total_s(self, trials: int, concurrent: int) -> float | None:
        """Returns the seconds of all trials; None if not known."""
        return None if self.trial_s is None else GROUP_START_S + math.ceil(trials / concurrent) * self.trial_s


def forecast(space: Space, base: Config, *, num_slices: int, threads: int, workers: int = 1) -> Forecast:
    """Times the middle of the space: a training step if it is quick, else a convolution of known FLOPs.

    Args:
        num_slices: number of slices of the training patients.
        threads: CPU threads of all workers together; 0: the workers use GPUs. Without a GPU here, `epoch_s` is None.
        workers: number of workers that share a batch.
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
        timed = [_epoch_s(one, num_slices, speed, workers=workers, on_gpu=on_gpu) for one in middles(space, base)]
    finally:
        torch.set_num_threads(before)
    seconds, measured = zip(*timed, strict=True)
    return Forecast(statistics.fmean(seconds), epochs, grace, "measured" if all(measured) else "estimated", limit_s)


def _epoch_s(config: Config, num_slices: int, speed: float, *, workers: int, on_gpu: bool) -> tuple[float, bool]:
    """Returns the seconds of an epoch, and whether they come from a measured step."""
    steps = num_slices // config.train.batch_size / updates_of(config).batches
    flops = estimate(config, workers=workers, device="gpu" if on_gpu else "cpu").flops_per_step
    estimated_s = flops * (1 if on_gpu else workers) / speed
    measured = not on_gpu and estimated_s <= MEASURED_STEP_S
    return steps * (step_s(config) if measured else estimated_s), measured


def expected_epochs(epochs: int, scheduler: Scheduler) -> float:
    """Returns the mean number of epochs of a trial.

    asha: every rung keeps one in `reduction_factor`; median: half of the trials stop after the grace epochs; none: no
    trial stops early.
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
    """Returns the configuration in the middle of the space, for each method of the space."""
    return space.every_method(base, middle_of)


def middle_of(move: Move) -> Any:
    """Returns the middle of a range, on its own scale, or the first of several choices."""
    if move.choice:
        return move.choice[0]
    low, high = move.ends
    if move.integer:
        return (low + high) // 2
    return math.sqrt(low * high) if move.log else (low + high) / 2


def step_s(config: Config) -> float:
    """Returns the seconds of the second training step on the CPU, or of the first one if it takes more than 5 s."""
    step, elapsed = random_step(config, torch.device("cpu")), 0.0
    for _ in range(2):
        began = time.perf_counter()
        step()
        elapsed = time.perf_counter() - began
        if elapsed > 5:
            break
    return elapsed


def flops_per_s(device: torch.device) -> float:
    """Measures FLOP/s of a convolution and its gradients; it is as large as the largest one of a network."""
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
