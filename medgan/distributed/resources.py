"""Describes what one worker group takes, and what a machine or a cluster has."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Resources:
    """Describes what one group takes: `workers` DDP processes, each with `cpus` threads and one GPU or none."""

    workers: int
    cpus: int = 1
    device: str = "cpu"

    @property
    def use_gpu(self) -> bool:
        return self.device == "gpu"

    @property
    def devices(self) -> int:
        """Returns the number of GPUs, or of CPU cores where the group has no GPU."""
        return self.workers if self.use_gpu else self.workers * self.cpus

    @property
    def unit(self) -> str:
        """Returns the name of the unit in which a person counts the devices' hours."""
        return "GPU-hours" if self.use_gpu else "core-hours"


@dataclass(frozen=True)
class Capacity:
    """Describes what a cluster, or this machine, has in total."""

    cpus: int
    gpus: int
    nodes: int = 1

    def groups(self, resources: Resources) -> int:
        """Returns how many worker groups fit at once."""
        by_cpu = self.cpus // (resources.workers * resources.cpus)
        return min(by_cpu, self.gpus // resources.workers) if resources.use_gpu else by_cpu


def machine() -> Capacity:
    """Returns the capacity of this machine."""
    cpus = float(len(os.sched_getaffinity(0)))
    quota = Path("/sys/fs/cgroup/cpu.max")  # a container's limit, which the affinity does not include
    if quota.exists() and (limits := quota.read_text().split())[0] != "max":
        cpus = min(cpus, int(limits[0]) / int(limits[1]))
    return Capacity(max(1, int(cpus)), torch.cuda.device_count())
