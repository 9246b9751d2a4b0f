"""Defines where a training runs: one process here, Ray Train's workers in `medgan.distributed.ray_runtime`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn


class Runtime(Protocol):
    """Describes what a training needs from the processes that run it."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def prepare(self, module: nn.Module) -> nn.Module:
        """Moves the module to this rank's device and returns it; its gradients are averaged over the ranks."""

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Returns the mean over the ranks, the same on every rank, NaN included."""

    def agree(self, module: nn.Module) -> None:
        """Averages the statistics of batch normalization over the ranks; each saw its own share of a batch."""

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        """Returns the rows of all ranks, on every rank, in rank order."""


@dataclass(frozen=True)
class SingleProcess:
    """Runs a training in one process on one device."""

    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rank: int = 0
    size: int = 1

    def prepare(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        return dict(values)

    def agree(self, module: nn.Module) -> None:
        """Does nothing, because one process agrees with itself."""

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        return list(rows)
