"""There and back: a step of the methods with a cycle."""

import pytest
import torch

from medgan.losses.objective import weighted_sum
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.training.step import Updates, generator_inputs, train_step, update_discriminator, update_generator


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


def test_the_two_ways_start_from_different_weights(cycle, make_state):
    there, back = make_state(cycle()).directions
    assert changed(there.generator, copies(back.generator))
    assert changed(there.discriminator, copies(back.discriminator))


def test_one_step_changes_both_generators_and_both_discriminators(cycle, make_state, batches):
    state = make_state(cycle())
    before = [copies(network) for network in networks(state)]
    train_step(state, build_objective(cycle()), batches(), Updates())
    assert [changed(*pair) for pair in zip(networks(state), before, strict=True)] == [True] * 4


def test_each_way_looks_at_its_own_images_and_networks(cycle, make_state, batches):
    state, (source, target) = make_state(cycle()), next(batches())
    there, back = generator_inputs(state, build_objective(cycle()), source, target)
    for view, direction, other, given, wanted in (
        (there, *state.directions, source, target),
        (back, *reversed(state.directions), target, source),
    ):
        assert view.source is given
        assert view.target is wanted
        assert view.discriminator is direction.discriminator
        assert torch.equal(view.output, direction.generator(given))
        assert torch.equal(view.cycled, other.generator(direction.generator(given)))
        assert torch.equal(view.kept, direction.generator(wanted))


def test_the_generators_descend_on_the_sum_over_both_ways(cycle, make_state, batches):
    state, objective = make_state(cycle()), build_objective(cycle())
    for direction in state.directions:
        direction.discriminator.eval()  # spectral norm would take a step of its power iteration
    batch = next(batches())
    views = generator_inputs(state, objective, *batch)
    weights = [weight for direction in state.directions for weight in direction.generator.parameters()]
    there, back = (weighted_sum(objective.generator, view)[0] for view in views)
    expected = torch.autograd.grad(there + back, weights)
    update_generator(state, objective, batch, Updates())
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-5)


def test_the_cycle_term_of_one_way_alone_reaches_both_generators(cycle, make_state, batches):
    config = cycle(loss__lambda_adversarial=0.0, loss__lambda_identity=0.0, generator__norm="none")
    state, objective = make_state(config), build_objective(config)
    there, _ = generator_inputs(state, objective, *next(batches()))
    weighted_sum(objective.generator, there)[0].backward()
    for direction in state.directions:
        assert all(parameter.grad.abs().sum() > 0 for parameter in direction.generator.parameters())


def test_the_identity_term_of_one_way_reaches_its_own_generator_alone(cycle, make_state, batches):
    config = cycle(loss__lambda_adversarial=0.0, loss__lambda_cycle=1e-9)
    state, objective = make_state(config), build_objective(config)
    there, _ = generator_inputs(state, objective, *next(batches()))
    objective.generator["identity"][1](there).backward()
    own, other = state.directions
    assert any(parameter.grad is not None for parameter in own.generator.parameters())
    assert all(parameter.grad is None for parameter in other.generator.parameters())


def test_no_output_is_compared_with_its_own_target(cycle, make_state, batches):
    """Which is what makes the method fit for images that are not paired."""
    state, objective = make_state(cycle()), build_objective(cycle())
    state.directions[0].discriminator.eval()  # spectral norm would take a step of its power iteration
    (source, target), (_, other) = next(batches()), next(batches(seed=1))
    for name in ("cycle", "adversarial"):
        term = objective.generator[name][1]
        one, same = (term(generator_inputs(state, objective, source, wanted)[0]) for wanted in (target, other))
        assert one == same


def test_the_discriminators_gradients_are_untouched_by_the_generators_turn(cycle, make_state, batches):
    state, objective = make_state(cycle()), build_objective(cycle())
    judges = [direction.discriminator for direction in state.directions]
    before = [copies(judge) for judge in judges]
    for judge in judges:
        for parameter in judge.parameters():
            parameter.grad = torch.ones_like(parameter)
    update_generator(state, objective, next(batches()), Updates())
    for judge, weights in zip(judges, before, strict=True):
        assert all((parameter.grad == 1).all() for parameter in judge.parameters())
        assert all(parameter.requires_grad for parameter in judge.parameters()), "thawed for its own turn"
        assert not changed(judge, weights)


def test_the_discriminators_turn_leaves_both_generators_alone(cycle, make_state, batches):
    state, objective = make_state(cycle()), build_objective(cycle())
    before = [copies(direction.generator) for direction in state.directions]
    update_discriminator(state, objective, [generator_inputs(state, objective, *next(batches()))], Updates())
    for direction, weights in zip(state.directions, before, strict=True):
        assert not changed(direction.generator, weights)
        assert all(parameter.grad is None for parameter in direction.generator.parameters())


def test_each_discriminator_sees_its_own_real_images_and_the_detached_outputs_of_its_generator(
    cycle, make_state, batches
):
    state, seen = make_state(cycle()), ([], [])
    for direction, calls in zip(state.directions, seen, strict=True):
        direction.discriminator.register_forward_pre_hook(lambda module, pair, calls=calls: calls.append(pair))
    objective, (source, target) = build_objective(cycle()), next(batches())
    views = generator_inputs(state, objective, source, target)
    update_discriminator(state, objective, [views], Updates())
    for calls, view, given, wanted in zip(seen, views, (source, target), (target, source), strict=True):
        real, fake = calls
        assert real[0] is given
        assert real[1] is wanted
        assert torch.equal(fake[1], view.output)
        assert not fake[1].requires_grad


def test_what_is_logged_is_the_sum_over_the_ways(cycle, make_state, batches):
    config = cycle(discriminator__spectral_norm=False)
    state, objective, batch = make_state(config), build_objective(config), next(batches())
    views = generator_inputs(state, objective, *batch)
    each = [weighted_sum(objective.generator, view)[1] for view in views]
    terms = ("adversarial", "cycle", "identity")
    judged = []
    for direction, view in zip(state.directions, views, strict=True):
        real, fake = (
            direction.discriminator(view.source, view.target),
            direction.discriminator(view.source, view.output),
        )
        judged.append((((real.logits - 1) ** 2).mean() + (fake.logits**2).mean()) / 2)
    losses = train_step(state, objective, iter([batch]), updates_of(config))
    assert set(losses) == {*terms, *(f"{term}_weighted" for term in terms), "discriminator"}
    for name in set(losses) - {"discriminator"}:
        torch.testing.assert_close(losses[name], each[0][name] + each[1][name])
    torch.testing.assert_close(losses["discriminator"], sum(judged).detach())


def test_clipping_holds_for_both_ways(cycle, make_state, batches):
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


def test_each_way_keeps_its_own_past_outputs(cycle, make_state, batches):
    config = cycle(train__pool_size=3)
    state, objective, stream = make_state(config), build_objective(config), batches()
    for _ in range(3):
        train_step(state, objective, stream, updates_of(config))
    there, back = (direction.pool for direction in state.directions)
    assert there is not back
    assert len(there.kept) == len(back.kept) == 3
    assert not any(output.requires_grad for pool in (there, back) for _, output in pool.kept)


def test_without_a_cycle_there_is_one_way(small, make_state, batches):
    state = make_state(small())
    (views,) = generator_inputs(state, build_objective(small()), *next(batches()))
    assert views.inverse is None


def test_the_average_follows_the_way_that_is_evaluated(cycle, make_state, batches):
    config = cycle(train__ema_decay=0.5)
    state = make_state(config)
    start = copies(state.directions[0].generator)
    train_step(state, build_objective(config), batches(), updates_of(config))
    for mine, old, new in zip(copies(state.average), start, copies(state.directions[0].generator), strict=True):
        torch.testing.assert_close(mine, (old + new) / 2)
