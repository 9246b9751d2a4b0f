"""Times functions in turns in one process, so that noise of the machine affects all of them equally."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from medgan.benchmark.measurements import Spread, spread_of
from medgan.training.mixed_precision import has_bfloat16

LEAST_ROUNDS = 3

Times = dict[str, list[float]]
"""Maps a name to the seconds of each round; an index is the same round for all names."""


def in_turns(
    functions: Mapping[str, Callable[[], object]], *, device: torch.device, limit_s: float, warmups: int = 1
) -> Times:
    """Calls each function once a round, every round in the reverse order of the one before.

    Args:
        device: device that they compute on; each call ends when the device has finished.
        limit_s: seconds after which no round begins, except for the first three.
        warmups: calls of each function before the timing.

    Returns:
        Seconds by name, one value for each round.
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
    """Returns the seconds of one call, until the device has finished its work."""
    wait_for(device)
    began = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Waits until the device has finished its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(count: float, times: Sequence[float]) -> Spread:
    """Returns the items a second, where each round processed `count` items."""
    return spread_of([count / one for one in times])


def ratio(reference: Sequence[float], times: Sequence[float]) -> Spread:
    """Returns how many times faster than the reference the times are, round by round."""
    return spread_of([theirs / mine for theirs, mine in zip(reference, times, strict=True)])


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Tells whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return has_bfloat16(device)
    return re.search(r"\b(avx512_|amx_)?bf16\b", Path("/proc/cpuinfo").read_text()) is not None


def described(device: torch.device) -> str:
    """Describes the device in a few words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}"
