"""What a training changes: networks, optimizers, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from medgan.training.image_pool import Pool


@dataclass
class Direction:
    """One way of translation: who translates, and who judges the result, if anyone does."""

    generator: nn.Module
    discriminator: nn.Module | None
    pool: Pool = field(default_factory=lambda: Pool(0))


@dataclass
class State:
    """The networks as the runtime prepared them, their optimizers, and one row of metrics for each finished epoch.

    Attributes:
        ways: source to target, and, for methods with a cycle, target to source.
        generator_optimizer: of all generators.
        discriminator_optimizer: of all discriminators; none where there are none.
        extractor: frozen, and not part of what is saved.
        average: a generator whose weights are the moving average of the first one's; none where none is kept.
        history: as saved.
    """

    directions: list[Direction]
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer | None = None
    extractor: nn.Module | None = None
    average: nn.Module | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def generator(self) -> nn.Module:
        """Source to target, as it is trained."""
        return self.directions[0].generator

    @property
    def best_generator(self) -> nn.Module:
        """Source to target, as it is evaluated and kept: averaged where an average is kept."""
        return self.average if self.average is not None else bare(self.generator)


def bare(module: nn.Module) -> nn.Module:
    """The network itself, without the wrapper that averages gradients."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def tensors(state: State) -> dict[str, Tensor]:
    """Everything of a state that is a tensor, under flat names: networks and optimizers."""
    return dict(_named_tensors(state))


def load_tensors(state: State, saved: dict[str, Tensor]) -> None:
    """The inverse of `tensors`; the optimizers keep the learning rates they were built with."""
    for name, network in _networks(state).items():
        network.load_state_dict(_below(saved, f"{name}."))
    for name, optimizer in _optimizers(state).items():
        moments: dict[int, dict[str, Any]] = {}
        for key, value in _below(saved, f"{name}.").items():
            index, moment = key.split(".", 1)
            moments.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _named_tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    for name, network in _networks(state).items():
        for key, value in network.state_dict().items():
            yield f"{name}.{key}", value.contiguous()
    for name, optimizer in _optimizers(state).items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                yield f"{name}.{index}.{key}", value.contiguous()


def _networks(state: State) -> dict[str, nn.Module]:
    found = {}
    for prefix, direction in zip(("", "inverse_"), state.directions, strict=False):
        found[f"{prefix}generator"] = bare(direction.generator)
        if direction.discriminator is not None:
            found[f"{prefix}discriminator"] = bare(direction.discriminator)
    return found if state.average is None else {**found, "average": state.average}


def _optimizers(state: State) -> dict[str, Optimizer]:
    named = {"generator_optimizer": state.generator_optimizer, "discriminator_optimizer": state.discriminator_optimizer}
    return {name: optimizer for name, optimizer in named.items() if optimizer is not None}


def _below(saved: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
