"""One training step, as the paper's algorithm: generator updates, then one of the discriminator (section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from medgan.engine.state import State, bare
from medgan.losses.objective import Objective, Views

Batch = tuple[Tensor, Tensor]


def medgan_step(
    state: State, objective: Objective, batches: Iterator[Batch], *, generator_steps: int
) -> dict[str, Tensor]:
    """Updates the generator on each of `generator_steps` batches, then the discriminator on the last of them.

    Args:
        state: changed in place.
        objective: what both networks minimize.
        batches: (source, target) pairs, each (B, C, H, W) in [-1, 1] on the state's device.
        generator_steps: generator updates for one discriminator update; three in the paper.

    Returns:
        Detached scalars: the generator's terms of its last update, and `discriminator`.
    """
    for source, target in islice(batches, generator_steps):
        output = state.generator(source)
        losses = update_generator(state, objective, source, target, output)
    losses["discriminator"] = update_discriminator(state, objective, source, target, output.detach())
    return losses


def update_generator(
    state: State, objective: Objective, source: Tensor, target: Tensor, output: Tensor
) -> dict[str, Tensor]:
    """One step of the generator; the discriminator judges, frozen, and keeps no gradient of it."""
    state.discriminator.requires_grad_(False)
    views = Views(source, target, output, bare(state.discriminator), state.extractor)
    total, losses = objective.generator_loss(views)
    state.generator_optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.generator_optimizer.step()
    state.discriminator.requires_grad_(True)
    return losses


def update_discriminator(state: State, objective: Objective, source: Tensor, target: Tensor, output: Tensor) -> Tensor:
    """One step of the discriminator on the real pair and the detached fake one."""
    real, fake = state.discriminator(source, target), state.discriminator(source, output)
    loss = objective.discriminator_loss(real.logits, fake.logits)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.discriminator_optimizer.step()
    return loss.detach()
