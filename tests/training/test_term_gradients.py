"""Gradients of the loss terms at the output, outside of a training: equal to those by hand, and without a trace."""

import pytest
import torch

from medgan.losses.gradient_shares import shares_of
from medgan.losses.perceptual import perceptual_loss
from medgan.training.build_objective import build_objective
from medgan.training.state import tensors
from medgan.training.step import generator_inputs
from medgan.training.term_gradients import norms_at_start, norms_of_training, term_norms

pytestmark = pytest.mark.unit


def test_term_norms_equal_gradients_by_hand(small, make_state, batches):
    config = small(loss__lambda_l1=3.0, discriminator__spectral_norm=False)
    state, objective, (source, target) = make_state(config), build_objective(config), next(batches())
    output = state.generator(source).detach().requires_grad_()
    discriminator = state.directions[0].discriminator
    mine, theirs = discriminator(source, output), discriminator(source, target)
    values = {
        "l1": (output - target).abs().mean(),
        "adversarial": torch.nn.functional.softplus(-mine.logits).mean(),
        "perceptual": perceptual_loss((output, *mine.features), (target, *theirs.features)),
    }
    expected = {
        name: float(torch.autograd.grad(value, output, retain_graph=True)[0].norm()) for name, value in values.items()
    }
    assert term_norms(state, objective, (source, target)) == pytest.approx(expected, rel=1e-5)


def test_term_norms_leave_weights_and_gradients_unchanged(small, make_state, batches):
    config = small(discriminator__spectral_norm=False)
    state = make_state(config)
    before = {name: value.clone() for name, value in tensors(state).items()}
    term_norms(state, build_objective(config), next(batches()))
    assert all(torch.equal(value, before[name]) for name, value in tensors(state).items())
    assert all(parameter.grad is None for parameter in state.generator.parameters())


def test_term_norms_cover_both_directions_of_cycle(small, make_state, batches):
    config = small(loss__lambda_cycle=10.0, loss__lambda_identity=5.0)
    state, objective, batch = make_state(config), build_objective(config), next(batches())
    norms = term_norms(state, objective, batch)
    assert set(norms) == {"adversarial", "perceptual", "cycle"}, "identity does not look at the output"
    one = generator_inputs(state, objective, *batch)[0]
    (gradient,) = torch.autograd.grad((one.cycled - one.source).abs().mean(), one.output)
    assert norms["cycle"] > float(gradient.norm())


def test_divergence_of_latent_has_no_gradient_at_output(small, make_state, batches):
    config = small(
        generator__network="variational", loss__lambda_kl=0.1, loss__lambda_l1=1.0, loss__lambda_perceptual=0.0,
        loss__lambda_adversarial=0.0,
    )  # fmt: skip
    assert set(term_norms(make_state(config), build_objective(config), next(batches()))) == {"l1"}


def test_norms_of_training_are_those_of_start_and_change_with_steps(small, make_slices):
    start, later = norms_of_training(small(), make_slices(8), num_steps=2)
    assert set(start) == set(later) == {"adversarial", "perceptual"}
    assert start["perceptual"] != later["perceptual"]
    assert next(iter(norms_of_training(small(), make_slices(8)))) == start


@pytest.mark.parametrize("num_slices", [1, 3, 50])
def test_norms_at_start_take_few_slices_of_any_data_set(small, make_slices, num_slices):
    assert set(norms_at_start(small(), make_slices(num_slices))) == {"adversarial", "perceptual"}


def test_shares_at_start_hardly_depend_on_number_of_blocks(small, make_state, batches):
    shares = []
    for number in (1, 6):
        config = small(generator__num_blocks=number, loss__lambda_style=1e-2, loss__style_blocks=[1])
        state, objective = make_state(config), build_objective(config)
        norms = term_norms(state, objective, next(batches()))
        shares.append(shares_of(norms, {name: weight for name, (weight, _) in objective.generator.items()}))
    assert shares[1] == pytest.approx(shares[0], rel=0.5)
