"""Where a training's step spends its time: part by part, operator by operator, and against the device's peak."""

from __future__ import annotations

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
"""Steps beforehand, of which one counts operations besides; of each of two timings; in the trace."""
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
    """What one kind of operation takes a step, without those that it calls."""

    name: str
    seconds: float
    share: float
    calls: float


@dataclass(frozen=True)
class StepProfile:
    """Where the time of a training's steps goes.

    Attributes:
        step_s: of a step that nothing looks at, with its data.
        parts: name -> seconds a step, each without the parts within it; the device is waited for between them.
        operators: those that take most, on the GPU where there is one.
        flops: floating-point operations a step, a multiplication and an addition two.
        peak: floating-point operations a second of a large matrix product here.
        product: the product's type of number.
    """

    step_s: float
    parts: dict[str, float]
    operators: list[Operator]
    flops: int
    peak: float
    product: str


class Stopwatch:
    """Seconds of named parts of a program, each without the parts within it.

    Args:
        device: waited for wherever a part begins or ends.

    Attributes:
        seconds: by name, in all.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._since = device, 0.0
        self._open: list[str] = []

    def enter(self, name: str) -> None:
        """From here on the time is this part's."""
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        """From here on the time is again that of the part around."""
        self._count()
        self._open.pop()

    def _count(self) -> None:
        wait_for(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


class Marks:
    """Names the parts in a trace; enters and leaves as a `Stopwatch`."""

    def __init__(self) -> None:
        self._open: list[record_function] = []

    def enter(self, name: str) -> None:
        """From here on the trace shows this part."""
        self._open.append(record_function(name))
        self._open[-1].__enter__()

    def leave(self) -> None:
        """It ends here."""
        self._open.pop().__exit__(None, None, None)


def profile_steps(training: Training, trace: Path) -> StepProfile:
    """Takes a few steps of a training, which changes it, and looks where their time goes.

    Args:
        training: on this process alone.
        trace: where a Chrome trace of two of the steps goes.
    """
    device, batches = training.runtime.device, _fed(training)
    objective = training.objective.at(training.length.progress(training.state.history))

    def step(objective: Objective = objective, batches: Iterator[Batch] = batches) -> None:
        train_step(training.state, objective, batches, training.updates)

    flops = counted(step)
    for _ in range(WARMUPS - 1):
        step()
    undisturbed = median(seconds(step, device) for _ in range(TIMED))
    watch = Stopwatch(device)
    with watched(training, objective, batches, watch) as looked_at:
        for _ in range(TIMED):
            watch.enter(REST)
            step(*looked_at)
            watch.leave()
    with watched(training, objective, batches, Marks()) as looked_at:
        operators = traced(lambda: step(*looked_at), device, trace)
    return StepProfile(
        undisturbed,
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
    """The objective and the batches of a training, whose steps tell `watch` of every part meanwhile."""
    state = training.state
    networks = [(GENERATOR, bare(direction.generator)) for direction in state.directions]
    networks += [
        (DISCRIMINATOR, bare(direction.discriminator))
        for direction in state.directions
        if direction.discriminator is not None
    ]
    networks += [(EXTRACTOR, state.extractor)] if state.extractor is not None else []
    with ExitStack() as stack:
        for name, network in networks:
            _watch_network(name, network, watch, stack)
        for optimizer in filter(None, (state.generator_optimizer, state.discriminator_optimizer)):
            stack.callback(optimizer.register_step_pre_hook(lambda *_: watch.enter(OPTIMIZER)).remove)
            stack.callback(optimizer.register_step_post_hook(lambda *_: watch.leave()).remove)
        told: list[Any] = [
            {name: (weight, partial(_during, watch, LOSSES, term)) for name, (weight, term) in terms.items()}
            for terms in (objective.generator, objective.discriminator)
        ]
        fed = iter(partial(_during, watch, DATA, next, batches), None)
        yield replace(objective, generator=told[0], discriminator=told[1]), fed


def traced(step: Callable[[], object], device: torch.device, trace: Path) -> list[Operator]:
    """Writes a Chrome trace of a few steps; the operators that took most of them."""
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
    """The training's batches from the first one on, augmented, on its device."""
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
    """Calls a function as a part."""
    watch.enter(name)
    try:
        return function(*arguments)
    finally:
        watch.leave()
