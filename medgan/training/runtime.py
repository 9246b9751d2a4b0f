"""Where a training runs: one process here, Ray Train's workers in `medgan.distributed.ray_runtime`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn


class Runtime(Protocol):
    """What the engine asks of the processes it runs in."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module on this rank's device, its gradients averaged over the ranks."""

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over the ranks, the same on every rank, NaN included."""

    def agree(self, module: nn.Module) -> None:
        """Averages what batch normalization has seen over the ranks: each normalizes its own share of a batch."""

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of every rank, on every rank, in rank order."""


@dataclass(frozen=True)
class SingleProcess:
    """One process, one device."""

    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rank: int = 0
    size: int = 1

    def prepare(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        return dict(values)

    def agree(self, module: nn.Module) -> None:
        """One process agrees with itself."""

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        return list(rows)
