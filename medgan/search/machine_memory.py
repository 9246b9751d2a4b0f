"""Finds how much memory a machine has; `medgan.training.memory_estimate` counts what a configuration needs."""

import torch

from medgan.processes.crew import machine_bytes


def available_bytes(device: str) -> int | None:
    """Returns the bytes of the smallest GPU here, or of this machine or its container; None if not known."""
    if device == "gpu":
        sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
        return min(sizes, default=None)
    return machine_bytes()
