"""How the same step is computed faster: memory format and compiler, chosen by timing a few steps on the device at hand.

On a CPU the memory format alone is tried: compiling takes tens of seconds a network there. What cannot be had (no
compiler tool-chain, no memory, no bfloat16) is left out and said in a line; it is never an error.
"""

from __future__ import annotations

import gc
import json
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medgan.data.atomic_write import write_atomically
from medgan.training.mixed_precision import mapped

SPEED = "speed.json"
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MODES = ("default", "reduce-overhead")
"""Of `torch.compile`; the second records CUDA graphs. Those that search for the best kernel take minutes."""
LEAST_STEPS, LIMIT_S, WORTH = 3, 1.0, 1.03
"""Steps that are timed, seconds after which no other one begins, and how much faster is worth other rounding."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """How a training is computed.

    Attributes:
        memory_format: of weights and activations, "contiguous" or "channels_last".
        compiled: mode of `torch.compile`, or "no".
        ratio: how many times faster than the plain step, as it was measured; 1 for the plain one.
        notes: a line for each thing that this device could not do.
    """

    memory_format: str = "contiguous"
    compiled: str = "no"
    ratio: float = 1.0
    notes: tuple[str, ...] = ()

    def eager(self) -> Speed:
        """The same, not compiled.

        For discriminators: spectral normalization gives each a class of its own, which torch compiles anew for every
        trial, and a gradient penalty differentiates them twice, which it cannot compile.
        """
        return replace(self, compiled="no")

    def text(self) -> str:
        """The choice, for a person and for a tag."""
        return self.memory_format if self.compiled == "no" else f"{self.memory_format}, compiled ({self.compiled})"

    def lines(self) -> list[str]:
        """The choice with its gain, and what could not be done."""
        gain = f", {self.ratio:.2f} times the plain step" if self.ratio > 1 else ""
        return [f"speed: {self.text()}{gain}", *self.notes]


PLAIN = Speed()


def fastest(step_of: Callable[[Speed], Step], device: torch.device, *, ranks: int = 1) -> Speed:
    """The way in which a few steps took least time; the plain one, unless another is 3 % faster.

    Args:
        step_of: builds a training that is computed so, and gives its step.
        device: where it computes; on a GPU, the better memory format is compiled too.
        ranks: processes that train together; CUDA graphs are for one alone.
    """
    taken = {PLAIN: _timed(PLAIN, step_of, device)}
    notes = _try(replace(PLAIN, memory_format="channels_last"), step_of, device, taken)
    if device.type == "cuda":
        better = min(taken, key=lambda speed: taken[speed])
        for mode in MODES if ranks == 1 else MODES[:1]:
            notes += _try(replace(better, compiled=mode), step_of, device, taken)
    best = min(taken, key=lambda speed: taken[speed])
    ratio = taken[PLAIN] / taken[best]
    return replace(best, ratio=ratio, notes=tuple(notes)) if ratio >= WORTH else replace(PLAIN, notes=tuple(notes))


def step_s(step: Step, speed: Speed, device: torch.device) -> float:
    """The shortest time of a step in seconds, after those in which torch compiles, and records CUDA graphs."""
    for _ in range(1 if speed.compiled == "no" else 3):
        _seconds(step, device)
    times: list[float] = []
    while len(times) < LEAST_STEPS or sum(times) < LIMIT_S:
        times.append(_seconds(step, device))
    return min(times)


def fitted(network: nn.Module, speed: Speed) -> nn.Module:
    """The network itself, laid out and compiled so; the names of its weights stay.

    It is compiled for the mode it is in now, training or not; in the other one it stays eager, so that the many shapes
    of a validation are not compiled.
    """
    network.to(memory_format=FORMATS[speed.memory_format])  # type: ignore[call-overload]
    if speed.compiled != "no":
        eager, mode = network.forward, network.training
        fast = torch.compile(eager, mode=speed.compiled, dynamic=False)

        def forward(self: nn.Module, *images: Tensor, **settings: Any) -> Any:
            if self.training != mode:
                return eager(*images, **settings)
            outputs = fast(*images, **settings)
            return mapped(outputs, Tensor.clone)  # out of a CUDA graph's memory, which its next replay writes over

        network.forward = MethodType(forward, network)
    return network


def align(optimizers: Iterable[Optimizer | None]) -> None:
    """Lays moments that were read from a file out as their weights are, which a fused optimizer insists on."""
    for optimizer in filter(None, optimizers):
        for weight, moments in optimizer.state.items():
            for name, value in moments.items():
                if value.shape == weight.shape and value.stride() != weight.stride():
                    moments[name] = torch.empty_like(weight).copy_(value).detach()


def keep(folder: Path, speed: Speed) -> None:
    """Writes the choice beside the training's checkpoint: what goes on is computed in the same way."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SPEED, json.dumps(asdict(speed)).encode())


def recall(folder: Path) -> Speed | None:
    """What was kept; none where nothing was chosen."""
    if not (folder / SPEED).exists():
        return None
    kept = json.loads((folder / SPEED).read_text())
    return Speed(**{**kept, "notes": tuple(kept["notes"])})


def notes(folder: Path) -> list[str]:
    """The lines that a person is told of what was kept; none where nothing was chosen."""
    speed = recall(folder)
    return [] if speed is None else speed.lines()


def tags_of_speed(folder: Path) -> dict[str, str]:
    """The tag of a run that trained in this folder."""
    speed = recall(folder)
    return {} if speed is None else {"medgan.speed": speed.text()}


def _try(speed: Speed, step_of: Callable[[Speed], Step], device: torch.device, taken: dict[Speed, float]) -> list[str]:
    """Times another way; a line where it cannot be had."""
    if speed.compiled != "no":
        torch.compiler.reset()  # what was compiled for other ways and shapes
    try:
        taken[speed] = _timed(speed, step_of, device)
    except RuntimeError as error:  # torch's compilers and allocators all raise kinds of it
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        return [f"speed: {speed.text()} cannot be had here ({reason})"]
    return []


def _timed(speed: Speed, step_of: Callable[[Speed], Step], device: torch.device) -> float:
    try:
        return step_s(step_of(speed), speed, device)
    finally:
        gc.collect()  # else the ways' networks add up


def _seconds(step: Step, device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
