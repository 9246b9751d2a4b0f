"""What a training changes: two networks, two optimizers, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass
class State:
    """The networks as the runtime prepared them, their optimizers, and one row of metrics for each finished epoch.

    `extractor` is frozen and not part of what is saved.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    extractor: nn.Module | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)


def bare(module: nn.Module) -> nn.Module:
    """The network itself, without the wrapper that averages gradients."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def tensors(state: State) -> dict[str, Tensor]:
    """Everything of a state that is a tensor, under flat names: networks and optimizers."""
    return dict(_named_tensors(state))


def _named_tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    for name in ("generator", "discriminator"):
        for key, value in bare(getattr(state, name)).state_dict().items():
            yield f"{name}.{key}", value.contiguous()
        for index, values in getattr(state, f"{name}_optimizer").state_dict()["state"].items():
            for key, value in values.items():
                yield f"{name}_optimizer.{index}.{key}", value.contiguous()


def load_tensors(state: State, saved: dict[str, Tensor]) -> None:
    """The inverse of `tensors`; the optimizers keep the learning rates they were built with."""
    for name in ("generator", "discriminator"):
        bare(getattr(state, name)).load_state_dict(_below(saved, f"{name}."))
        optimizer = getattr(state, f"{name}_optimizer")
        moments: dict[int, dict[str, Any]] = {}
        for key, value in _below(saved, f"{name}_optimizer.").items():
            index, moment = key.split(".", 1)
            moments.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _below(saved: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
