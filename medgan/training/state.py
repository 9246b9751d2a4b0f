"""Defines what a training changes: networks, optimizers and the history of finished epochs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medgan.training.image_pool import Pool


@dataclass
class Direction:
    """Holds the networks of one direction of translation; a method without adversarial terms has no discriminator."""

    generator: nn.Module
    discriminator: nn.Module | None
    pool: Pool = field(default_factory=lambda: Pool(0))


@dataclass
class State:
    """Holds the networks as the runtime prepared them, their optimizers, and the history.

    Attributes:
        directions: source to target and, for cycle methods, target to source.
        discriminator_optimizer: optimizer of all discriminators; None without discriminators.
        extractor: frozen feature extractor; it is not saved.
        average: generator whose weights are the moving average of the first generator's; None without averaging.
        history: one row of metrics for each finished epoch.
    """

    directions: list[Direction]
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer | None = None
    extractor: nn.Module | None = None
    average: nn.Module | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Returns the number of finished epochs."""
        return len(self.history)

    @property
    def generator_updates(self) -> Tensor:
        """Returns the number of updates of the generators so far, which Adam counts and a checkpoint keeps."""
        moments = next(iter(self.generator_optimizer.state.values()), {"step": torch.ones(())})  # SGD counts nothing
        return moments["step"]

    @property
    def generator(self) -> nn.Module:
        """Returns the generator from source to target that is trained."""
        return self.directions[0].generator

    @property
    def generators(self) -> list[nn.Module]:
        """Returns the generator of each direction."""
        return [direction.generator for direction in self.directions]

    @property
    def discriminators(self) -> list[nn.Module]:
        """Returns the discriminator of each direction, or an empty list."""
        return [direction.discriminator for direction in self.directions if direction.discriminator is not None]

    @property
    def best_generator(self) -> nn.Module:
        """Returns the generator from source to target that is evaluated and kept: the average, if there is one."""
        return self.average if self.average is not None else bare(self.generator)


def bare(module: nn.Module) -> nn.Module:
    """Returns the network without the wrapper that averages gradients over the ranks."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def tensors(state: State) -> dict[str, Tensor]:
    """Returns all tensors of the networks and optimizers under flat names."""
    return dict(_named_tensors(state))


def load_tensors(state: State, saved: dict[str, Tensor]) -> None:
    """Loads what `tensors` returned; the optimizers keep the learning rates they were built with."""
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
