"""One training step, as the paper's algorithm: generator updates, then the discriminator's (section 3.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medgan.losses.objective import DiscriminatorInputs, GeneratorInputs, Objective, weighted_sum
from medgan.training.state import State, bare

Batch = tuple[Tensor, Tensor]
Part = TypeVar("Part")

LOOKS_WITHIN = {"stages": "every_block", "kl": "with_latent"}
"""A term that looks into the generator -> what the generator is asked to give, beside its output."""


@dataclass(frozen=True)
class Updates:
    """How a step updates.

    Attributes:
        generator: updates of the generator a step, each on its own batch; three in the paper.
        discriminator: updates of the discriminator a step; the first on the generator's last batch, each other on its
            own; 0 where there is none.
        clip_norm: largest norm of a network's gradient.
        clip_weights: largest weight of the discriminator (Arjovsky et al., 2017, algorithm 1).
        ema_decay: of the averaged generator.
        accumulate: parts that a batch goes through the networks in; their gradients are averaged before an update, so
            that it is the whole batch's, unless batch normalization sees less of it. Spectral normalization takes a
            step of its power iteration with every part.
    """

    generator: int = 1
    discriminator: int = 1
    clip_norm: float | None = None
    clip_weights: float | None = None
    ema_decay: float = 0.0
    accumulate: int = 1

    @property
    def batches(self) -> int:
        """How many batches a step takes."""
        return self.generator + max(self.discriminator - 1, 0)


def train_step(state: State, objective: Objective, batches: Iterator[Batch], updates: Updates) -> dict[str, Tensor]:
    """Updates the generator on each of its batches, then the discriminator on the last of them.

    Args:
        state: changed in place.
        objective: what both networks minimize.
        batches: (source, target) pairs, each (B, C, H, W) in [-1, 1] on the state's device.
        updates: how many, and how.

    Returns:
        Detached scalars: the generator's terms of its last update, `discriminator`, and its terms beside the
        adversarial one as `discriminator_<term>`. Two ways of translation are added up.
    """
    for batch in itertools.islice(batches, updates.generator):
        seen, losses = update_generator(state, objective, batch, updates)
    for number in range(updates.discriminator):
        if number:
            with torch.no_grad():
                seen = [look(state, objective, *part) for part in split(next(batches), updates.accumulate)]
        losses |= update_discriminator(state, objective, seen, updates)
    return losses


def look(state: State, objective: Objective, source: Tensor, target: Tensor) -> list[GeneratorInputs]:
    """Translates a batch: from source to target and, where there is a way back, from target to source."""
    asked = {setting: True for term, setting in LOOKS_WITHIN.items() if objective.generator.get(term, (0.0,))[0]}
    pairs = [(source, target), (target, source)][: len(state.directions)]
    generators = [direction.generator for direction in state.directions]
    seen = []
    for direction, inverse, (given, wanted) in zip(state.directions, reversed(generators), pairs, strict=True):
        *within, output = direction.generator(given, **asked) if asked else [direction.generator(given)]
        seen.append(
            GeneratorInputs(
                source=given,
                target=wanted,
                output=output,
                generator=direction.generator,
                discriminator=bare(direction.discriminator) if direction.discriminator is not None else None,
                extractor=state.extractor,
                inverse=inverse if len(generators) > 1 else None,
                within=tuple(within),
            )
        )
    return seen


def update_generator(
    state: State, objective: Objective, batch: Batch, updates: Updates
) -> tuple[list[list[GeneratorInputs]], dict[str, Tensor]]:
    """One step of the generators; the discriminators judge, frozen, and keep no gradient of it.

    Returns:
        What the discriminators are to see: for each part of the batch the views of every way, outputs detached, and
        nothing else computed; and the losses.
    """
    generators = [direction.generator for direction in state.directions]
    judges = [direction.discriminator for direction in state.directions if direction.discriminator is not None]
    for judge in judges:
        judge.requires_grad_(False)
    state.generator_optimizer.zero_grad(set_to_none=True)
    seen: list[list[GeneratorInputs]] = []
    logged: list[dict[str, Tensor]] = []
    for part in _added_up(split(batch, updates.accumulate), generators):
        views, terms = _descent_of_generators(state, objective, part, updates)
        seen.append(views)
        logged += terms
    _descend(state.generator_optimizer, generators, updates)
    for judge in judges:
        judge.requires_grad_(True)
    if state.average is not None:
        follow(state.average, bare(state.generator), updates.ema_decay)
    return seen, added(logged, parts=len(seen))


def update_discriminator(
    state: State, objective: Objective, seen: Sequence[list[GeneratorInputs]], updates: Updates
) -> dict[str, Tensor]:
    """One step of the discriminators on the real pairs and the detached fake ones, part by part."""
    assert state.discriminator_optimizer is not None, "there is no discriminator to update"
    judges = [direction.discriminator for direction in state.directions if direction.discriminator is not None]
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    logged: list[dict[str, Tensor]] = []
    for views in _added_up(seen, judges):
        logged += _descent_of_discriminators(state, objective, views, parts=len(seen))
    _descend(state.discriminator_optimizer, judges, updates)
    if updates.clip_weights is not None:
        for weight in itertools.chain.from_iterable(judge.parameters() for judge in judges):
            weight.data.clamp_(-updates.clip_weights, updates.clip_weights)
    return added(logged, parts=len(seen))


def split(batch: Batch, parts: int) -> list[Batch]:
    """Source and target in so many equal parts along the batch."""
    source, target = (images.chunk(parts) for images in batch)
    return list(zip(source, target, strict=True))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay x average + (1 - decay) x network; statistics of normalization are copied."""
    for mine, theirs in zip(average.parameters(), network.parameters(), strict=True):
        mine.lerp_(theirs, 1 - decay)
    for kept, seen in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(seen)


def added(logged: Sequence[dict[str, Tensor]], *, parts: int) -> dict[str, Tensor]:
    """Name -> sum over the ways, mean over the parts of the batch."""
    return {name: torch.stack([terms[name] for terms in logged]).sum() / parts for name in logged[0]}


def _descent_of_generators(
    state: State, objective: Objective, part: Batch, updates: Updates
) -> tuple[list[GeneratorInputs], Sequence[dict[str, Tensor]]]:
    """Adds a part's share of the gradient; what was computed for it alone is gone when this returns."""
    views = look(state, objective, *part)
    totals, logged = zip(*(weighted_sum(objective.generator, view) for view in views), strict=True)
    (torch.stack(totals).sum() / updates.accumulate).backward()
    return [replace(view, output=view.output.detach(), within=()) for view in views], logged


def _descent_of_discriminators(
    state: State, objective: Objective, views: list[GeneratorInputs], *, parts: int
) -> list[dict[str, Tensor]]:
    """Adds a part's share of the gradient."""
    totals, logged = [], []
    for direction, view in zip(state.directions, views, strict=True):
        assert direction.discriminator is not None, "both ways are judged, or none"
        source, output = direction.pool.exchange(view.source, view.output.detach())
        real, fake = direction.discriminator(view.source, view.target), direction.discriminator(source, output)
        judgement = DiscriminatorInputs(view.source, view.target, output, bare(direction.discriminator), real, fake)
        total, terms = weighted_sum(objective.discriminator, judgement)
        totals.append(total)
        named = {f"discriminator_{name}": value for name, value in terms.items() if not name.startswith("adversarial")}
        logged.append({"discriminator": total.detach(), **named})
    (torch.stack(totals).sum() / parts).backward()
    return logged


def _added_up(parts: Sequence[Part], networks: list[nn.Module]) -> Iterator[Part]:
    """The parts of a batch, whose gradients add up; ranks average theirs once, with the last part."""
    *first, last = parts
    with ExitStack() as alone:
        for network in networks:
            if isinstance(network, DistributedDataParallel):
                alone.enter_context(network.no_sync())
        yield from first
    yield last


def _descend(optimizer: torch.optim.Optimizer, networks: list[nn.Module], updates: Updates) -> None:
    if updates.clip_norm is not None:
        for network in networks:
            nn.utils.clip_grad_norm_(network.parameters(), updates.clip_norm)
    optimizer.step()
