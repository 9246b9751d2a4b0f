"""Runs the engine on Ray Train workers: DDP over gloo (CPU) or NCCL (GPU)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray.train
import ray.train.torch
import torch
import torch.distributed
from torch import nn


@dataclass(frozen=True)
class RayRuntime:
    """Is the engine's runtime on one rank of a Ray Train worker group."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def current(cls) -> Self:
        """Returns the runtime of the worker that calls this method."""
        context = ray.train.get_context()
        return cls(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())

    def prepare(self, module: nn.Module) -> nn.Module:
        # buffers are equal on all ranks by construction, except batch normalization's (see `agree`); broadcasting them
        # between the two forwards of a discriminator update would change what backward needs
        return ray.train.torch.prepare_model(module, parallel_strategy_kwargs={"broadcast_buffers": False})

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        totals = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(totals)
        return dict(zip(values, (totals / self.size).tolist(), strict=True))

    def agree(self, module: nn.Module) -> None:
        for layer in module.modules():
            if self.size > 1 and isinstance(layer, nn.BatchNorm2d):
                for statistic in filter(torch.is_tensor, (layer.running_mean, layer.running_var)):
                    torch.distributed.all_reduce(statistic)
                    statistic.div_(self.size)

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(parts, list(rows))
        return [row for part in parts for row in part]
