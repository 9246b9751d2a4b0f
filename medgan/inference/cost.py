"""Measures what translating one slice costs: time and memory."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medgan.inference.translator import Translator, translate_slices

WARM_UP, MOST, LEAST = 3, 30, 5
LIMIT_S = 10.0
"""Limits the timing of slices, after at least `LEAST` of them."""


@dataclass(frozen=True)
class Cost:
    """Holds the cost of one slice of the training's grid.

    Attributes:
        latency_ms: median time, from values in physical units to values in physical units.
        memory_gb: peak memory while translating: of tensors on a GPU; on a CPU of the whole process, Python and
            libraries included.
    """

    latency_ms: float
    memory_gb: float
    device: str


def measure_cost(translator: Translator) -> Cost:
    """Returns the cost of translating a slice of noise, measured many times on the network's device."""
    device = next(translator.network.parameters()).device
    low, high = translator.task.source.window or (0.0, 1.0)
    shape = (1, translator.size, translator.size)
    noise = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
    for _ in range(WARM_UP):
        translate_slices(translator, noise)
    _forget_peak(device)
    times_s: list[float] = []
    end = time.perf_counter() + LIMIT_S
    while len(times_s) < LEAST or (len(times_s) < MOST and time.perf_counter() < end):
        start = time.perf_counter()
        translate_slices(translator, noise)
        times_s.append(time.perf_counter() - start)
    return Cost(1000 * statistics.median(times_s), _peak_bytes(device) / 1e9, _named(device))


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: resets the peak to the memory in use now
    except OSError:  # not allowed everywhere; the peak is then that since the start of the process
        return


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
