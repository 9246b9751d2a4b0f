"""A training step of the methods that translate in both directions."""

import pytest
import torch

from medgan.losses.objective import weighted_sum
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.training.step import Updates, generator_inputs, train_step, update_discriminator, update_generator

pytestmark = pytest.mark.unit


def copies(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def changed(network, before):
    return any(not torch.equal(*pair) for pair in zip(network.parameters(), before, strict=True))


def networks(state):
    return [network for direction in state.directions for network in (direction.generator, direction.discriminator)]


@pytest.fixture
def cycle(small):
    """A small method with a cycle."""

    def make(**more):
        settings = {
            "generator__num_blocks": 1, "train__generator_steps": 1, "loss__lambda_perceptual": 0.0,
            "loss__adversarial": "lsgan", "loss__lambda_cycle": 10.0, "loss__lambda_identity": 5.0,
        }  # fmt: skip
        return small(**(settings | more))

    return make


def test_directions_start_from_different_weights(cycle, make_state):
    there, back = make_state(cycle()).directions
    assert changed(there.generator, copies(back.generator))
    assert changed(there.discriminator, copies(back.discriminator))


def test_train_step_changes_both_generators_and_both_discriminators(cycle, make_state, batches):
    state = make_state(cycle())
    before = [copies(network) for network in networks(state)]
    train_step(state, build_objective(cycle()), batches(), Updates())
    assert [changed(*pair) for pair in zip(networks(state), before, strict=True)] == [True] * 4


def test_generator_inputs_hold_images_and_networks_of_own_direction(cycle, make_state, batches):
    state, (source, target) = make_state(cycle()), next(batches())
    there, back = generator_inputs(state, build_objective(cycle()), source, target)
    for own, direction, other, given, wanted in (
        (there, *state.directions, source, target),
        (back, *reversed(state.directions), target, source),
    ):
        assert own.source is given
        assert own.target is wanted
        assert own.discriminator is direction.discriminator
        assert torch.equal(own.output, direction.generator(given))
        assert torch.equal(own.cycled, other.generator(direction.generator(given)))
        assert torch.equal(own.kept, direction.generator(wanted))


def test_generator_gradient_is_gradient_of_sum_over_both_directions(cycle, make_state, batches):
    state, objective = make_state(cycle()), build_objective(cycle())
    for direction in state.directions:
        direction.discriminator.eval()  # spectral norm would take a step of its power iteration
    batch = next(batches())
    inputs = generator_inputs(state, objective, *batch)
    weights = [weight for direction in state.directions for weight in direction.generator.parameters()]
    there, back = (weighted_sum(objective.generator, one)[0] for one in inputs)
    expected = torch.autograd.grad(there + back, weights)
    update_generator(state, objective, batch, Updates())
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-5)


def test_cycle_term_of_one_direction_reaches_both_generators(cycle, make_state, batches):
    config = cycle(loss__lambda_adversarial=0.0, loss__lambda_identity=0.0, generator__norm="none")
    state, objective = make_state(config), build_objective(config)
    there, _ = generator_inputs(state, objective, *next(batches()))
    weighted_sum(objective.generator, there)[0].backward()
    for direction in state.directions:
        assert all(parameter.grad.abs().sum() > 0 for parameter in direction.generator.parameters())


def test_identity_term_reaches_only_generator_of_own_direction(cycle, make_state, batches):
    config = cycle(loss__lambda_adversarial=0.0, loss__lambda_cycle=1e-9)
    state, objective = make_state(config), build_objective(config)
    there, _ = generator_inputs(state, objective, *next(batches()))
    objective.generator["identity"][1](there).backward()
    own, other = state.directions
    assert any(parameter.grad is not None for parameter in own.generator.parameters())
    assert all(parameter.grad is None for parameter in other.generator.parameters())


def test_cycle_and_adversarial_terms_do_not_use_target_of_output(cycle, make_state, batches):
    """Therefore the method works with images that are not paired."""
    state, objective = make_state(cycle()), build_objective(cycle())
    state.directions[0].discriminator.eval()  # spectral norm would take a step of its power iteration
    (source, target), (_, other) = next(batches()), next(batches(seed=1))
    for name in ("cycle", "adversarial"):
        term = objective.generator[name][1]
        one, same = (term(generator_inputs(state, objective, source, wanted)[0]) for wanted in (target, other))
        assert one == same


def test_update_generator_leaves_gradients_of_discriminators_unchanged(cycle, make_state, batches):
    state, objective = make_state(cycle()), build_objective(cycle())
    discriminators = [direction.discriminator for direction in state.directions]
    before = [copies(discriminator) for discriminator in discriminators]
    for discriminator in discriminators:
        for parameter in discriminator.parameters():
            parameter.grad = torch.ones_like(parameter)
    update_generator(state, objective, next(batches()), Updates())
    for discriminator, weights in zip(discriminators, before, strict=True):
        assert all((parameter.grad == 1).all() for parameter in discriminator.parameters())
        assert all(parameter.requires_grad for parameter in discriminator.parameters()), (
            "trainable again for the update of the discriminator"
        )
        assert not changed(discriminator, weights)


def test_update_discriminator_leaves_both_generators_unchanged(cycle, make_state, batches):
    state, objective = make_state(cycle()), build_objective(cycle())
    before = [copies(direction.generator) for direction in state.directions]
    update_discriminator(state, objective, [generator_inputs(state, objective, *next(batches()))], Updates())
    for direction, weights in zip(state.directions, before, strict=True):
        assert not changed(direction.generator, weights)
        assert all(parameter.grad is None for parameter in direction.generator.parameters())


def test_discriminators_see_own_real_images_and_detached_outputs(cycle, make_state, batches):
    state, seen = make_state(cycle()), ([], [])
    for direction, calls in zip(state.directions, seen, strict=True):
        direction.discriminator.register_forward_pre_hook(lambda module, pair, calls=calls: calls.append(pair))
    objective, (source, target) = build_objective(cycle()), next(batches())
    inputs = generator_inputs(state, objective, source, target)
    update_discriminator(state, objective, [inputs], Updates())
    for calls, own, given, wanted in zip(seen, inputs, (source, target), (target, source), strict=True):
        real, fake = calls
        assert real[0] is given
        assert real[1] is wanted
        assert torch.equal(fake[1], own.output)
        assert not fake[1].requires_grad


def test_logged_losses_are_sums_over_directions(cycle, make_state, batches):
    config = cycle(discriminator__spectral_norm=False)
    state, objective, batch = make_state(config), build_objective(config), next(batches())
    inputs = generator_inputs(state, objective, *batch)
    each = [weighted_sum(objective.generator, one)[1] for one in inputs]
    terms = ("adversarial", "cycle", "identity")
    expected = []
    for direction, own in zip(state.directions, inputs, strict=True):
        real, fake = (direction.discriminator(own.source, own.target), direction.discriminator(own.source, own.output))
        expected.append((((real.logits - 1) ** 2).mean() + (fake.logits**2).mean()) / 2)
    losses = train_step(state, objective, iter([batch]), updates_of(config))
    judgement = {"judgement_real", "judgement_fake"}
    assert set(losses) == {*terms, *(f"{term}_weighted" for term in terms), "discriminator", *judgement}
    for name in set(losses) - {"discriminator", *judgement}:
        torch.testing.assert_close(losses[name], each[0][name] + each[1][name])
    torch.testing.assert_close(losses["discriminator"], sum(expected).detach())


def test_clipping_applies_to_both_directions(cycle, make_state, batches):
    config = cycle(
        loss__adversarial="wasserstein", optim__clip_weights=0.01, optim__clip_norm=1e-3,
        discriminator__spectral_norm=False,
    )  # fmt: skip
    state = make_state(config)
    train_step(state, build_objective(config), batches(), updates_of(config))
    for direction in state.directions:
        assert all(float(weight.abs().max()) <= 0.01 + 1e-9 for weight in copies(direction.discriminator))
        norm = torch.cat([parameter.grad.flatten() for parameter in direction.generator.parameters()]).norm()
        assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_directions_have_separate_pools_of_past_outputs(cycle, make_state, batches):
    config = cycle(train__pool_size=3)
    state, objective, stream = make_state(config), build_objective(config), batches()
    for _ in range(3):
        train_step(state, objective, stream, updates_of(config))
    there, back = (direction.pool for direction in state.directions)
    assert there is not back
    assert len(there.kept) == len(back.kept) == 3
    assert not any(output.requires_grad for pool in (there, back) for _, output in pool.kept)


def test_method_without_cycle_has_one_direction(small, make_state, batches):
    state = make_state(small())
    (inputs,) = generator_inputs(state, build_objective(small()), *next(batches()))
    assert inputs.inverse is None


def test_average_follows_generator_of_evaluated_direction(cycle, make_state, batches):
    config = cycle(train__ema_decay=0.5)
    state = make_state(config)
    start = copies(state.directions[0].generator)
    train_step(state, build_objective(config), batches(), updates_of(config))
    for mine, old, new in zip(copies(state.average), start, copies(state.directions[0].generator), strict=True):
        torch.testing.assert_close(mine, (2 * old + 49 * new) / 51)  # the warm-up's first decay
