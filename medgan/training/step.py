"""Makes one training step, as the paper's algorithm: generator updates, then the discriminator's (section 3.3)."""

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

INNER_OUTPUTS = {"stages": "every_block", "kl": "with_latent"}
"""Maps a term on inner outputs of the generator to the option that makes the generator return them too."""


@dataclass(frozen=True)
class Updates:
    """Describes the updates of a step.

    Attributes:
        generator: updates of the generator a step, each on its own batch; three in the paper.
        discriminator: updates of the discriminator a step; the first uses the generator's last batch, each other one
            its own batch; 0 without a discriminator.
        clip_norm: largest norm of a network's gradient.
        clip_weights: largest weight of the discriminator (Arjovsky et al., 2017, algorithm 1).
        ema_decay: decay of the averaged generator's weights, reached after a warm-up; see `decay_after`.
        accumulate: number of parts in which a batch passes the networks. Their gradients are averaged before an update:
            the update is the whole batch's, unless batch normalization sees less of it. Spectral normalization makes
            a step of its power iteration with every part.
    """

    generator: int = 1
    discriminator: int = 1
    clip_norm: float | None = None
    clip_weights: float | None = None
    ema_decay: float = 0.0
    accumulate: int = 1

    @property
    def batches(self) -> int:
        """Returns how many batches a step takes."""
        return self.generator + max(self.discriminator - 1, 0)


def train_step(state: State, objective: Objective, batches: Iterator[Batch], updates: Updates) -> dict[str, Tensor]:
    """Updates the generator on each of its batches, then the discriminator on the last of them.

    Args:
        state: networks and optimizers, changed in place.
        batches: (source, target) pairs, each (B, C, H, W) in [-1, 1] on the state's device.

    Returns:
        Detached scalars: the generator's terms of its last update, `discriminator`, and the discriminator's other terms
        as `discriminator_<term>`, each the sum over the directions; and the discriminator's mean logit of real and of
        generated images, `judgement_real` and `judgement_fake`, the mean over the directions.
    """
    for batch in itertools.islice(batches, updates.generator):
        inputs, losses = update_generator(state, objective, batch, updates)
    for number in range(updates.discriminator):
        if number:
            parts = split(next(batches), updates.accumulate)
            with torch.no_grad():
                inputs = [generator_inputs(state, objective, *part) for part in parts]
        losses |= update_discriminator(state, objective, inputs, updates)
    return losses


def generator_inputs(state: State, objective: Objective, source: Tensor, target: Tensor) -> list[GeneratorInputs]:
    """Translates a batch from source to target and, for a cycle method, from target to source."""
    options = {option: True for term, option in INNER_OUTPUTS.items() if objective.generator.get(term, (0.0,))[0]}
    pairs = [(source, target), (target, source)][: len(state.directions)]
    inputs = []
    for direction, inverse, (source, target) in zip(state.directions, state.generators[::-1], pairs, strict=True):
        *within, output = direction.generator(source, **options) if options else [direction.generator(source)]
        inputs.append(
            GeneratorInputs(
                source=source,
                target=target,
                output=output,
                generator=direction.generator,
                discriminator=bare(direction.discriminator) if direction.discriminator is not None else None,
                extractor=state.extractor,
                inverse=inverse if len(pairs) > 1 else None,
                within=tuple(within),
            )
        )
    return inputs


def update_generator(
    state: State, objective: Objective, batch: Batch, updates: Updates
) -> tuple[list[list[GeneratorInputs]], dict[str, Tensor]]:
    """Updates the generators once; the discriminators are frozen and get no gradient.

    Returns:
        The inputs of the discriminators' update, for each part of the batch and each direction, with detached outputs
        and nothing computed from them; and the losses.
    """
    for discriminator in state.discriminators:
        discriminator.requires_grad_(False)
    state.generator_optimizer.zero_grad(set_to_none=True)
    inputs: list[list[GeneratorInputs]] = []
    losses: list[dict[str, Tensor]] = []
    for part in _accumulated(split(batch, updates.accumulate), state.generators):
        part_inputs, part_losses = _generator_gradients(state, objective, part, updates)
        inputs.append(part_inputs)
        losses += part_losses
    _clip_and_step(state.generator_optimizer, state.generators, updates)
    for discriminator in state.discriminators:
        discriminator.requires_grad_(True)
    if state.average is not None:
        follow(state.average, bare(state.generator), decay_after(state.generator_updates, updates.ema_decay))
    return inputs, added(losses, parts=len(inputs))


def update_discriminator(
    state: State, objective: Objective, inputs: Sequence[list[GeneratorInputs]], updates: Updates
) -> dict[str, Tensor]:
    """Updates the discriminators once, on the real pairs and the detached generated ones, part by part."""
    assert state.discriminator_optimizer is not None, "there is no discriminator to update"
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    losses: list[dict[str, Tensor]] = []
    for part_inputs in _accumulated(inputs, state.discriminators):
        losses += _discriminator_gradients(state, objective, part_inputs, parts=len(inputs))
    _clip_and_step(state.discriminator_optimizer, state.discriminators, updates)
    if updates.clip_weights is not None:
        for weight in itertools.chain.from_iterable(network.parameters() for network in state.discriminators):
            weight.data.clamp_(-updates.clip_weights, updates.clip_weights)
    return added(losses, parts=len(inputs))


def split(batch: Batch, parts: int) -> list[Batch]:
    """Splits source and target into equal parts along the batch dimension."""
    source, target = (images.chunk(parts) for images in batch)
    return list(zip(source, target, strict=True))


def decay_after(num_updates: Tensor, decay: float) -> Tensor:
    """Returns min(decay, (1 + n) / (50 + n)): the average is over the last fiftieth of a training, until `decay` holds.

    The first, random weights leave the average at once, and it does not lag behind a generator that still learns fast.
    Source: the warm-up by `num_updates` of TensorFlow's ExponentialMovingAverage, which has 10 in the place of 50; with
    10, the average lags by half an epoch of a small data set.

    Args:
        num_updates: n, the number of updates of the network that the average has seen, from 1.
    """
    return ((1 + num_updates) / (50 + num_updates)).clamp(max=decay)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: Tensor) -> None:
    """Sets average <- decay x average + (1 - decay) x network; copies the statistics of normalization."""
    for averaged, weight in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(weight, (1 - decay).to(weight))
    for copied, buffer in zip(average.buffers(), network.buffers(), strict=True):
        copied.copy_(buffer)


def added(losses: Sequence[dict[str, Tensor]], *, parts: int) -> dict[str, Tensor]:
    """Returns each loss summed over the directions and averaged over the parts of the batch."""
    return {name: torch.stack([terms[name] for terms in losses]).sum() / parts for name in losses[0]}


def _generator_gradients(
    state: State, objective: Objective, part: Batch, updates: Updates
) -> tuple[list[GeneratorInputs], Sequence[dict[str, Tensor]]]:
    """Adds a part's share of the generators' gradient; on return, what else was computed for the part is freed."""
    inputs = generator_inputs(state, objective, *part)
    totals, losses = zip(*(weighted_sum(objective.generator, one) for one in inputs), strict=True)
    (torch.stack(totals).sum() / updates.accumulate).backward()
    return [replace(one, output=one.output.detach(), within=()) for one in inputs], losses


def _discriminator_gradients(
    state: State, objective: Objective, inputs: list[GeneratorInputs], *, parts: int
) -> list[dict[str, Tensor]]:
    """Adds a part's share of the discriminators' gradient."""
    totals, losses = [], []
    for direction, one in zip(state.directions, inputs, strict=True):
        discriminator = direction.discriminator
        assert discriminator is not None, "both directions have a discriminator, or none"
        source, output = direction.pool.exchange(one.source, one.output.detach())
        real, fake = discriminator(one.source, one.target), discriminator(source, output)
        discriminator_inputs = DiscriminatorInputs(one.source, one.target, output, bare(discriminator), real, fake)
        total, terms = weighted_sum(objective.discriminator, discriminator_inputs)
        totals.append(total)
        named = {f"discriminator_{name}": value for name, value in terms.items() if not name.startswith("adversarial")}
        judgement = {
            f"judgement_{name}": judged.logits.detach().mean() / len(inputs)
            for name, judged in (("real", real), ("fake", fake))
        }
        losses.append({"discriminator": total.detach(), **named, **judgement})
    (torch.stack(totals).sum() / parts).backward()
    return losses


def _accumulated(parts: Sequence[Part], networks: list[nn.Module]) -> Iterator[Part]:
    """Yields the parts of a batch, whose gradients add up; the ranks average theirs once, with the last part."""
    *first, last = parts
    with ExitStack() as without_sync:
        for network in networks:
            if isinstance(network, DistributedDataParallel):
                without_sync.enter_context(network.no_sync())
        yield from first
    yield last


def _clip_and_step(optimizer: torch.optim.Optimizer, networks: list[nn.Module], updates: Updates) -> None:
    if updates.clip_norm is not None:
        for network in networks:
            nn.utils.clip_grad_norm_(network.parameters(), updates.clip_norm)
    optimizer.step()
