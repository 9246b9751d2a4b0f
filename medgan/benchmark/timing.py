"""Times functions in turns, in one process, so that a noisy machine is as noisy for each of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from medgan.benchmark.measurements import Spread, spread_of
from medgan.training.mixed_precision import has_bfloat16

LEAST_ROUNDS = 3

Times = dict[str, list[float]]
"""Name -> seconds of each round; the same place is the same round."""


def in_turns(
    functions: Mapping[str, Callable[[], object]], *, device: torch.device, limit_s: float, warmups: int = 1
) -> Times:
    """Calls each function once a round, every round in the reverse order of the one before.

    Args:
        functions: by name.
        device: what they compute on; it is waited for.
        limit_s: no round begins later than this, but for the first three.
        warmups: rounds beforehand that are not timed.

    Returns:
        Seconds by name, a value a round.
    """
    for function in functions.values():
        for _ in range(warmups):
            function()
    times: Times = {name: [] for name in functions}
    order, end = list(functions), time.perf_counter() + limit_s
    while len(times[order[0]]) < LEAST_ROUNDS or time.perf_counter() < end:
        for name in order:
            times[name].append(seconds(functions[name], device))
        order.reverse()
    return times


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes, to the end of what it started on the device."""
    wait_for(device)
    began = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(count: float, times: Sequence[float]) -> Spread:
    """Things a second, where `count` of them were done in each round."""
    return spread_of([count / one for one in times])


def ratio(reference: Sequence[float], times: Sequence[float]) -> Spread:
    """How many times faster than the reference, round by round."""
    return spread_of([theirs / mine for theirs, mine in zip(reference, times, strict=True)])


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it."""
    if device.type == "cuda":
        return has_bfloat16(device)
    return re.search(r"\b(avx512_|amx_)?bf16\b", Path("/proc/cpuinfo").read_text()) is not None


def described(device: torch.device) -> str:
    """The device in a few words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}"
