"""Measures the gradient of each loss term at the generator's output, outside of a training's own steps."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from medgan.config import Config, with_values
from medgan.data.dataset import Batches, Slices
from medgan.losses.gradient_shares import GradientNorms
from medgan.losses.objective import Objective, weighted_sum
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.runtime import Runtime, SingleProcess
from medgan.training.state import State
from medgan.training.step import Batch, generator_inputs, train_step

LATER_STEPS = 10
"""After so many steps a training has left its random start, and the discriminator has begun to judge."""
SMALL = 128


def term_norms(state: State, objective: Objective, batch: Batch) -> dict[str, float]:
    """Returns term -> norm of its gradient at the generator's output for a batch, without the term's weight.

    Terms of weight 0, and terms that do not look at the output, are left out.
    """
    norms = GradientNorms(len(state.directions))
    watched = norms.watching(objective)
    with torch.no_grad():
        inputs = generator_inputs(state, objective, *batch)
    for one in inputs:
        weighted_sum(watched.generator, replace(one, output=one.output.requires_grad_()))
    return norms.norms()


def norms_at_start(config: Config, slices: Slices) -> dict[str, float]:
    """Returns what `term_norms` gives for untrained networks and a few slices, spread over the data set.

    Of a chain of blocks one is built: the output of untrained networks hardly depends on their number.
    """
    small = with_values(config, {"generator.num_blocks": 1, "loss.lambda_stages": 0.0, "train.ema_decay": 0.0})
    runtime = SingleProcess(torch.device("cpu"))  # a GPU is for the trials
    few = slices.spread(4 if config.data.size <= SMALL else 2)
    state, objective = build_state(small, runtime), build_objective(small).at(0.0)
    return term_norms(state, objective, batch_of(few, range(len(few)), runtime.device))


def norms_of_training(
    config: Config, slices: Slices, *, num_steps: int = LATER_STEPS, runtime: Runtime | None = None
) -> Iterator[dict[str, float]]:
    """Yields what `term_norms` gives for the first batch, at the start of a training and after so many of its steps."""
    runtime = runtime or SingleProcess()
    state, objective = build_state(config, runtime), build_objective(config).at(0.0)
    sampler = Batches(len(slices), config.train.batch_size, seed=config.train.seed)
    batches = (batch_of(slices, indices, runtime.device) for indices in sampler)
    first = next(batches)
    yield term_norms(state, objective, first)
    for _ in range(num_steps):
        train_step(state, objective, batches, updates_of(config))
    yield term_norms(state, objective, first)


def batch_of(slices: Slices, indices: Sequence[int], device: torch.device) -> Batch:
    """Returns sources and targets of some slices, (B, 1, H, W) each, on the device."""
    pairs = [slices[index] for index in indices]
    source, target = (torch.stack(images).to(device) for images in zip(*pairs, strict=True))
    return source, target
