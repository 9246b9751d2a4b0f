"""Profiles a training's step: its parts, its operators, and its share of the device's peak."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from medgan.benchmark.bench_step import PRODUCT, counted, measured_peak
from medgan.benchmark.timing import seconds, wait_for
from medgan.data.augmentation import AUGMENTATIONS
from medgan.data.dataset import Batches
from medgan.losses.objective import Objective
from medgan.training.feed import Feed
from medgan.training.loop import Training
from medgan.training.state import bare
from medgan.training.step import Batch, train_step

WARMUPS, TIMED, TRACED = 2, 3, 2
"""Counts the steps of the warm-up, one of which also counts operations, of each of two timings, and of the trace."""
MOST_OPERATORS = 10
DATA, GENERATOR, DISCRIMINATOR, EXTRACTOR, LOSSES, OPTIMIZER, REST = (
    "data",
    "generator, forward",
    "discriminator, forward",
    "feature extractor, forward",
    "losses",
    "optimizers",
    "backward, and the rest",
)


class Operator(NamedTuple):
    """Holds the cost of one kind of operation in a step, without the operations that it calls."""

    name: str
    seconds: float
    share: float
    calls: float


@dataclass(frozen=True)
class StepProfile:
    """Holds where the time of a training's steps goes.

    Attributes:
        step_s: seconds of a step without profiling, with its data.
        parts: name -> seconds in a step, without nested parts; the device is synchronized between the parts.
        operators: operators that take the most time, on the GPU where there is one.
        flops: floating-point operations of a step; a multiplication and an addition are two.
        peak: floating-point operations a second of a large matrix product on this device.
        product: number type of that product.
    """

    step_s: float
    parts: dict[str, float]
    operators: list[Operator]
    flops: int
    peak: float
    product: str


class Stopwatch:
    """Measures the seconds of named parts of a program, without nested parts.

    Args:
        device: device that is synchronized where a part begins or ends.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._since = device, 0.0
        self._open: list[str] = []

    def enter(self, name: str) -> None:
        """Begins a part: from here on, the time counts for it."""
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        """Ends the current part: from here on, the time counts for the surrounding part."""
        self._count()
        self._open.pop()

    def _count(self) -> None:
        wait_for(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


class Marks:
    """Names the parts in a trace; has the methods of a `Stopwatch`."""

    def __init__(self) -> None:
        self._open: list[record_function] = []

    def enter(self, name: str) -> None:
        """Begins a part in the trace."""
        self._open.append(record_function(name))
        self._open[-1].__enter__()

    def leave(self) -> None:
        """Ends the current part in the trace."""
        self._open.pop().__exit__(None, None, None)


def profile_steps(training: Training, trace: Path) -> StepProfile:
    """Profiles a few steps of a training, which changes the training.

    Args:
        training: training in this process alone.
        trace: path of the Chrome trace of two steps.
    """
    device, batches = training.runtime.device, _fed(training)
    objective = training.objective.at(training.length.progress(training.state.history))

    def step(objective: Objective = objective, batches: Iterator[Batch] = batches) -> None:
        train_step(training.state, objective, batches, training.updates)

    flops = counted(step)
    for _ in range(WARMUPS - 1):
        step()
    step_s = median(seconds(step, device) for _ in range(TIMED))
    watch = Stopwatch(device)
    with watched(training, objective, batches, watch) as inputs:
        for _ in range(TIMED):
            watch.enter(REST)
            step(*inputs)
            watch.leave()
    with watched(training, objective, batches, Marks()) as inputs:
        operators = traced(lambda: step(*inputs), device, trace)
    return StepProfile(
        step_s,
        {name: spent / TIMED for name, spent in watch.seconds.items()},
        operators,
        flops,
        measured_peak(device),
        str(PRODUCT[device.type]).removeprefix("torch."),
    )


@contextmanager
def watched(
    training: Training, objective: Objective, batches: Iterator[Batch], watch: Stopwatch | Marks
) -> Iterator[tuple[Objective, Iterator[Batch]]]:
    """Yields the training's objective and batches, wrapped so that its steps report every part to `watch`."""
    state = training.state
    networks = [(GENERATOR, bare(network)) for network in state.generators]
    networks += [(DISCRIMINATOR, bare(network)) for network in state.discriminators]
    networks += [(EXTRACTOR, state.extractor)] if state.extractor is not None else []
    with ExitStack() as stack:
        for name, network in networks:
            _watch_network(name, network, watch, stack)
        for optimizer in filter(None, (state.generator_optimizer, state.discriminator_optimizer)):
            stack.callback(optimizer.register_step_pre_hook(lambda *_: watch.enter(OPTIMIZER)).remove)
            stack.callback(optimizer.register_step_post_hook(lambda *_: watch.leave()).remove)
        wrapped: list[Any] = [
            {name: (weight, partial(_during, watch, LOSSES, term)) for name, (weight, term) in terms.items()}
            for terms in (objective.generator, objective.discriminator)
        ]
        fed = iter(partial(_during, watch, DATA, next, batches), None)
        yield replace(objective, generator=wrapped[0], discriminator=wrapped[1]), fed


def traced(step: Callable[[], object], device: torch.device, trace: Path) -> list[Operator]:
    """Writes a Chrome trace of a few steps; returns the operators that took the most time."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as recorded:
        for _ in range(TRACED):
            step()
        wait_for(device)
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    spent = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [
        one for one in recorded.key_averages() if one.device_type == DeviceType.CPU and not one.is_user_annotation
    ]
    total = sum(getattr(one, spent) for one in events)
    slowest = sorted(events, key=lambda one: getattr(one, spent), reverse=True)[:MOST_OPERATORS]
    return [
        Operator(one.key, getattr(one, spent) / TRACED / 1e6, getattr(one, spent) / total, one.count / TRACED)
        for one in slowest
    ]


def _fed(training: Training) -> Feed:
    """Returns the training's batches from the first one on, augmented, on its device."""
    return Feed(
        training.train,
        Batches(len(training.train), training.batch_size, seed=training.seed),
        device=training.runtime.device,
        augment=AUGMENTATIONS[training.augment],
        stored=training.stored,
    )


def _watch_network(name: str, network: nn.Module, watch: Stopwatch | Marks, stack: ExitStack) -> None:
    stack.callback(network.register_forward_pre_hook(lambda *_: watch.enter(name)).remove)
    stack.callback(network.register_forward_hook(lambda *_: watch.leave()).remove)


def _during(watch: Stopwatch | Marks, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function as a part of the program."""
    watch.enter(name)
    try:
        return function(*arguments)
    finally:
        watch.leave()
