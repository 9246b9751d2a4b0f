"""Finds how much memory a machine has; `medgan.training.memory_estimate` counts what a configuration needs."""

from pathlib import Path

import torch


def available_bytes(device: str) -> int | None:
    """Returns the bytes of the smallest GPU here, or of this machine or its container; None if not known."""
    if device == "gpu":
        sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
        return min(sizes, default=None)
    found = []
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        found.append(int(text))
    total = Path("/proc/meminfo")
    if total.exists():
        found.append(int(total.read_text().split("MemTotal:")[1].split()[0]) << 10)
    return min(found, default=None)
