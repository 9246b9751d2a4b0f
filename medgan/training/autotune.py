"""Computes the same step faster: chooses memory format and compiler by timing a few steps on the device.

On a CPU only the memory format is tried: compiling takes tens of seconds a network there. What is not available (no
compiler tool-chain, no memory, no bfloat16) is left out and reported in a line; it is never an error.
"""

import gc
import json
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MethodType
from typing import Any, Self

import torch
import torch._functorch.config as functorch
from torch import Tensor, nn
from torch.optim import Optimizer

from medgan.data.atomic_write import write_atomically
from medgan.training.mixed_precision import mapped

SPEED = "speed.json"
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MODES = ("default", "reduce-overhead")
"""Lists the modes of `torch.compile` to try; the second records CUDA graphs. Modes that search kernels take minutes."""
LEAST_STEPS, LIMIT_S, WORTH = 3, 1.0, 1.03
"""A timing takes at least LEAST_STEPS steps and LIMIT_S seconds; a gain below WORTH does not justify other rounding."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """Describes how a training is computed.

    Attributes:
        memory_format: format of weights and activations, "contiguous" or "channels_last".
        compiled: mode of `torch.compile`, or "no".
        ratio: how many times faster than the plain step, as measured; 1 for the plain step.
        notes: a line for each option that is not available on this device.
    """

    memory_format: str = "contiguous"
    compiled: str = "no"
    ratio: float = 1.0
    notes: tuple[str, ...] = ()

    def eager(self) -> Self:
        """Returns the same speed without compilation, for discriminators.

        Spectral normalization gives each discriminator a class of its own, which torch compiles anew for every trial,
        and a gradient penalty differentiates it twice, which torch cannot compile.
        """
        return replace(self, compiled="no")

    def text(self) -> str:
        """Returns the choice in words, for a person and for a tag."""
        return self.memory_format if self.compiled == "no" else f"{self.memory_format}, compiled ({self.compiled})"

    def lines(self) -> list[str]:
        """Returns a line with the choice and its gain, and the notes."""
        gain = f", {self.ratio:.2f} times the plain step" if self.ratio > 1 else ""
        return [f"speed: {self.text()}{gain}", *self.notes]


PLAIN = Speed()


def fastest(step_of: Callable[[Speed], Step], device: torch.device, *, ranks: int = 1) -> Speed:
    """Returns the speed with which a few steps took the least time: the plain one, unless another is 3 % faster.

    Args:
        step_of: builds a training with a speed and returns its step.
        device: device that computes; on a GPU, the better memory format is compiled too.
        ranks: number of processes that train together; CUDA graphs work in a single process only.
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
    """Returns the shortest time of a step in seconds, after the steps that compile and record CUDA graphs."""
    for _ in range(1 if speed.compiled == "no" else 3):
        _seconds(step, device)
    times: list[float] = []
    while len(times) < LEAST_STEPS or sum(times) < LIMIT_S:
        times.append(_seconds(step, device))
    return min(times)


def fitted(network: nn.Module, speed: Speed) -> nn.Module:
    """Gives a network the memory format and compiler of `speed` and returns it; the names of its weights stay.

    It is compiled for its current mode, training or evaluation; in the other mode it stays eager, so that the many
    shapes of a validation are not compiled.
    """
    network.to(memory_format=FORMATS[speed.memory_format])  # type: ignore[call-overload]
    if speed.compiled != "no":
        functorch.donated_buffer = False  # gradient shares go back through an extractor once for each of its terms
        eager, mode = network.forward, network.training
        compiled = torch.compile(eager, mode=speed.compiled, dynamic=False)

        def forward(self: nn.Module, *images: Tensor, **settings: Any) -> Any:
            if self.training != mode:
                return eager(*images, **settings)
            outputs = compiled(*images, **settings)
            return mapped(outputs, Tensor.clone)  # the next replay of a CUDA graph overwrites its memory

        network.forward = MethodType(forward, network)
    return network


def align(optimizers: Iterable[Optimizer | None]) -> None:
    """Gives moments that were read from a file the memory layout of their weights, as a fused optimizer requires."""
    for optimizer in filter(None, optimizers):
        for weight, moments in optimizer.state.items():
            for name, value in moments.items():
                if value.shape == weight.shape and value.stride() != weight.stride():
                    moments[name] = torch.empty_like(weight).copy_(value).detach()


def keep(folder: Path, speed: Speed) -> None:
    """Writes the speed beside the training's checkpoint, so that a resumed training is computed in the same way."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SPEED, json.dumps(asdict(speed)).encode())


def recall(folder: Path) -> Speed | None:
    """Returns the speed that `keep` wrote, or None."""
    if not (folder / SPEED).exists():
        return None
    kept = json.loads((folder / SPEED).read_text())
    return Speed(**{**kept, "notes": tuple(kept["notes"])})


def notes(folder: Path) -> list[str]:
    """Returns the lines for the user about the speed that `keep` wrote, or an empty list."""
    speed = recall(folder)
    return [] if speed is None else speed.lines()


def tags_of_speed(folder: Path) -> dict[str, str]:
    """Returns the tag of a run that trained in this folder, or no tag."""
    speed = recall(folder)
    return {} if speed is None else {"medgan.speed": speed.text()}


def _try(speed: Speed, step_of: Callable[[Speed], Step], device: torch.device, taken: dict[Speed, float]) -> list[str]:
    """Times another speed; returns a note where it is not available."""
    if speed.compiled != "no":
        torch.compiler.reset()  # drops code that was compiled for other speeds and shapes
    try:
        taken[speed] = _timed(speed, step_of, device)
    except RuntimeError as error:  # torch's compilers and allocators raise subclasses of it
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        return [f"speed: {speed.text()} is not available here ({reason})"]
    return []


def _timed(speed: Speed, step_of: Callable[[Speed], Step], device: torch.device) -> float:
    try:
        return step_s(step_of(speed), speed, device)
    finally:
        gc.collect()  # else the networks of all speeds stay in memory


def _seconds(step: Step, device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
