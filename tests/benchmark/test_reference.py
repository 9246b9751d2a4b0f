"""The plain reference computes what the engine computes: the same losses and gradients, from the same weights."""

import itertools
from dataclasses import replace

import pytest
import torch

from medgan.benchmark.plain_method import QUICK, UPDATES, build_objective, build_state, random_batches
from medgan.benchmark.reference import Reference
from medgan.training.step import generator_inputs, train_step, update_discriminator, update_generator

CPU = torch.device("cpu")
SMALL = replace(QUICK, size=32, base_channels=4, batch_size=2)
ROUNDING = 1e-5
"""Tolerance as a share of a network's largest gradient; a bias before a norm has only rounding errors."""
LOSSES = ("adversarial", "perceptual", "style", "content", "discriminator")


@pytest.fixture
def both():
    """The engine's state and the reference with the same weights, after the power iteration has converged."""
    state, reference = build_state(SMALL, CPU), Reference(SMALL, CPU)
    source, target = next(random_batches(SMALL, CPU, seed=7))
    with torch.no_grad():
        for _ in range(300):  # each forward takes one step of the power iteration, and the two make different numbers
            reference.discriminator(source, target)
    state.directions[0].discriminator.load_state_dict(reference.discriminator.state_dict())
    return state, reference


def gradients(network):
    return {name: weight.grad.clone() for name, weight in network.named_parameters()}


def close(mine, theirs):
    assert mine.keys() == theirs.keys()
    least = ROUNDING * float(max(value.detach().abs().max() for value in theirs.values()))
    for name, value in mine.items():
        torch.testing.assert_close(
            value, theirs[name], rtol=1e-4, atol=least, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_reference_starts_from_weights_of_engine(both):
    state, reference = both
    close(dict(state.generator.named_parameters()), dict(reference.generator.named_parameters()))
    close(dict(state.extractor.named_parameters()), dict(reference.extractor.named_parameters()))


def test_reference_step_has_losses_of_engine(both):
    state, reference = both
    mine = train_step(state, build_objective(SMALL), random_batches(SMALL, CPU), UPDATES)
    theirs = reference.step(random_batches(SMALL, CPU))
    assert tuple(theirs) == LOSSES
    for name in LOSSES:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=0.0)


def test_reference_generator_gradients_equal_engine(both):
    state, reference = both
    source, target = next(random_batches(SMALL, CPU))
    objective = build_objective(SMALL)
    update_generator(state, objective, (source, target), UPDATES)
    losses = reference.generator_losses(source, target, reference.generator(source))
    sum(weight * losses[name] for name, (weight, _) in objective.generator.items()).backward()
    close(gradients(state.generator), gradients(reference.generator))


def test_reference_discriminator_gradients_equal_engine(both):
    state, reference = both
    source, target = next(random_batches(SMALL, CPU))
    objective = build_objective(SMALL)
    inputs = generator_inputs(state, objective, source, target)
    update_discriminator(state, objective, [inputs], UPDATES)
    reference.discriminator_loss(source, target, inputs[0].output.detach()).backward()
    close(gradients(state.directions[0].discriminator), gradients(reference.discriminator))


def test_reference_agrees_with_engine_after_three_steps(both):
    state, reference = both
    mine, theirs, objective = random_batches(SMALL, CPU), random_batches(SMALL, CPU), build_objective(SMALL)
    for _ in range(3):
        last, reference_last = train_step(state, objective, mine, UPDATES), reference.step(theirs)
    for name in LOSSES:
        torch.testing.assert_close(last[name], reference_last[name], rtol=1e-2, atol=1e-4)


def test_reference_step_takes_three_batches():
    stream = itertools.count()
    batches = (batch for _, batch in zip(stream, random_batches(SMALL, CPU), strict=False))
    Reference(SMALL, CPU).step(batches)
    assert next(stream) == 3


def test_reference_step_shares_no_intermediate_result():
    """Each of three generator updates runs the discriminator 3 times and the extractor 4 times; 2 more runs follow."""
    reference, calls = Reference(SMALL, CPU), {"discriminator": 0, "extractor": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    for name in calls:
        getattr(reference, name).register_forward_hook(count(name))
    reference.step(random_batches(SMALL, CPU))
    assert calls == {"discriminator": 11, "extractor": 12}
