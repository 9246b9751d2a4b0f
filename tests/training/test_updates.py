"""The updates of a step: their number, and their limits."""

import copy
import itertools

import pytest
import torch

from medgan.losses.kl_divergence import kl_loss
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.training.step import Updates, generator_inputs, train_step, update_discriminator, update_generator

pytestmark = pytest.mark.unit


def copies(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def norm_of_gradients(network):
    return float(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm())


class TestDiscriminatorUpdates:
    def test_three_discriminator_updates_take_two_further_batches(self, small, make_state, batches):
        config = small(train__generator_steps=1, train__discriminator_steps=3, loss__lambda_perceptual=0.0)
        state, seen = make_state(config), []
        state.directions[0].discriminator.register_forward_pre_hook(lambda module, pair: seen.append(pair))
        drawn = list(itertools.islice(batches(), 4))
        rest = iter(drawn)
        assert updates_of(config).batches == 3
        train_step(state, build_objective(config), rest, updates_of(config))
        assert len(list(rest)) == 1, "one batch for the generator, two more for the discriminator"
        discriminator_pairs = seen[1:]  # the first call belongs to the generator update
        for number, (source, target) in enumerate(drawn[:3]):
            real, fake = discriminator_pairs[2 * number : 2 * number + 2]
            assert torch.equal(real[0], source)
            assert torch.equal(real[1], target)
            assert torch.equal(fake[0], source)
            assert not fake[1].requires_grad

    def test_generator_is_updated_once_and_discriminator_three_times(self, small, make_state, batches):
        config = small(train__generator_steps=1, train__discriminator_steps=3)
        state = make_state(config)
        train_step(state, build_objective(config), batches(), updates_of(config))
        for optimizer, steps in ((state.generator_optimizer, 1), (state.discriminator_optimizer, 3)):
            assert {float(values["step"]) for values in optimizer.state.values()} == {steps}

    def test_generator_update_does_not_depend_on_discriminator_steps(self, small, make_state, batches):
        after = []
        for steps in (1, 3):
            config = small(train__discriminator_steps=steps)
            state = make_state(config)
            train_step(state, build_objective(config), batches(), updates_of(config))
            after.append(copies(state.generator))
        assert all(torch.equal(*pair) for pair in zip(*after, strict=True))

    def test_further_fake_images_come_from_updated_generator(self, small, make_state, batches):
        config = small(train__generator_steps=1, train__discriminator_steps=2)
        state, seen = make_state(config), []
        state.directions[0].discriminator.register_forward_pre_hook(lambda module, pair: seen.append(pair))
        drawn = list(itertools.islice(batches(), 2))
        train_step(state, build_objective(config), iter(drawn), updates_of(config))
        with torch.no_grad():
            assert torch.equal(seen[-1][1], state.generator(drawn[1][0]))


class TestWithoutDiscriminator:
    @pytest.fixture
    def config(self, small):
        return small(
            loss__lambda_adversarial=0.0, loss__lambda_perceptual=0.0, loss__lambda_l1=1.0, train__generator_steps=1
        )

    def test_unused_discriminator_is_not_built_updated_or_logged(self, config, make_state, batches):
        state = make_state(config)
        assert state.directions[0].discriminator is None
        assert state.discriminator_optimizer is None
        losses = train_step(state, build_objective(config), batches(), updates_of(config))
        assert set(losses) == {"l1", "l1_weighted"}

    def test_generator_learns_without_discriminator(self, config, make_state, batches):
        state, before = make_state(config), copies(make_state(config).generator)
        train_step(state, build_objective(config), batches(), updates_of(config))
        assert not any(
            torch.equal(*pair) for pair in zip(copies(state.generator), before, strict=True) if pair[0].ndim > 1
        )

    @pytest.mark.parametrize("steps", [1, 4])
    def test_step_without_discriminator_takes_only_batches_of_generator(
        self, config, small, make_state, batches, steps
    ):
        config = small(
            loss__lambda_adversarial=0.0, loss__lambda_perceptual=0.0, loss__lambda_l1=1.0, train__generator_steps=2,
            train__discriminator_steps=steps,
        )  # fmt: skip
        rest = itertools.islice(batches(), 5)
        train_step(make_state(config), build_objective(config), rest, updates_of(config))
        assert updates_of(config).batches == 2
        assert len(list(rest)) == 3


class TestClipNorm:
    @pytest.mark.parametrize("turn", [update_generator, update_discriminator])
    def test_clip_norm_limits_gradient_norm_of_each_network(self, turn, small, make_state, batches):
        config = small(optim__clip_norm=1e-3)
        norms = []
        for updates in (Updates(), updates_of(config)):
            state, objective = make_state(config), build_objective(config)
            direction = state.directions[0]
            network = direction.generator if turn is update_generator else direction.discriminator
            batch = next(batches())
            turn(
                state,
                objective,
                batch if turn is update_generator else [generator_inputs(state, objective, *batch)],
                updates,
            )
            norms.append(norm_of_gradients(network))
        free, clipped = norms
        assert free > 2e-3, "else the limit would do nothing"
        assert clipped == pytest.approx(1e-3, rel=1e-3)

    def test_clip_norm_keeps_direction_of_gradient(self, small, make_state, batches):
        gradients = []
        for limit in (None, 1e-3):
            state, objective = make_state(small()), build_objective(small())
            update_generator(state, objective, next(batches()), Updates(clip_norm=limit))
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in state.generator.parameters()]))
        assert float(torch.cosine_similarity(*gradients, dim=0)) == pytest.approx(1, abs=1e-5)

    def test_clip_norm_leaves_smaller_gradient_unchanged(self, small, make_state, batches):
        norms = []
        for limit in (None, 1e6):
            state, objective = make_state(small()), build_objective(small())
            update_generator(state, objective, next(batches()), Updates(clip_norm=limit))
            norms.append(norm_of_gradients(state.generator))
        assert norms[0] == norms[1]


def test_clip_weights_bounds_weights_of_discriminator_and_not_of_generator(small, make_state, batches):
    config = small(
        loss__adversarial="wasserstein", optim__clip_weights=0.01, discriminator__spectral_norm=False,
        loss__lambda_perceptual=0.0,
    )  # fmt: skip
    state = make_state(config)
    largest = [max(float(weight.abs().max()) for weight in copies(state.directions[0].discriminator))]
    generator = max(float(weight.abs().max()) for weight in copies(state.generator))
    train_step(state, build_objective(config), batches(), updates_of(config))
    largest.append(max(float(weight.abs().max()) for weight in copies(state.directions[0].discriminator)))
    assert largest[0] > 0.01
    assert largest[1] == pytest.approx(0.01)
    assert all(float(weight.abs().max()) <= 0.01 + 1e-9 for weight in copies(state.directions[0].discriminator))
    assert max(float(weight.abs().max()) for weight in copies(state.generator)) > 0.9 * generator


class TestBlockOutputs:
    def inputs_and_calls(self, config, make_state, batches):
        state, calls = make_state(config), []
        state.generator.register_forward_pre_hook(
            lambda module, images, settings: calls.append(settings), with_kwargs=True
        )
        (inputs,) = generator_inputs(state, build_objective(config), *next(batches()))
        return state, inputs, calls

    def test_block_outputs_are_computed_if_term_uses_them(self, small, make_state, batches):
        state, inputs, calls = self.inputs_and_calls(
            small(loss__lambda_stages=1.0, generator__num_blocks=3), make_state, batches
        )
        assert calls == [{"every_block": True}]
        assert len(inputs.within) == 2
        outputs = state.generator(inputs.source, every_block=True)
        assert all(torch.equal(*pair) for pair in zip((*inputs.within, inputs.output), outputs, strict=True))

    def test_block_outputs_are_not_computed_if_no_term_uses_them(self, small, make_state, batches):
        _, inputs, calls = self.inputs_and_calls(small(), make_state, batches)
        assert calls == [{}]
        assert inputs.within == ()

    def test_stages_loss_reaches_all_blocks_but_last(self, small, make_state, batches):
        config = small(
            loss__lambda_stages=1.0, loss__lambda_adversarial=0.0, loss__lambda_perceptual=0.0, generator__num_blocks=3
        )
        state, objective = make_state(config), build_objective(config)
        update_generator(state, objective, next(batches()), Updates())
        first, second, last = ([parameter.grad for parameter in block.parameters()] for block in state.generator.blocks)
        assert all(gradient is not None for gradient in (*first, *second))
        assert sum(float(gradient.abs().sum()) for gradient in first) > 0
        assert sum(float(gradient.abs().sum()) for gradient in second) > 0
        assert all(gradient is None or not gradient.any() for gradient in last)

    def test_stages_loss_equals_value_worked_by_hand(self, small, make_state, batches):
        config = small(loss__lambda_stages=2.0, generator__num_blocks=3, train__generator_steps=1)
        state, drawn = make_state(config), next(batches())
        before = copy.deepcopy(state.generator)
        losses = train_step(state, build_objective(config), iter([drawn]), updates_of(config))
        with torch.no_grad():
            one, two, _ = before(drawn[0], every_block=True)
        expected = (one - drawn[1]).abs().mean() + (two - drawn[1]).abs().mean()
        torch.testing.assert_close(losses["stages"], expected)
        torch.testing.assert_close(losses["stages_weighted"], 2 * expected)


class TestLatent:
    """The mean and log variance of a variational generator's latent, which the KL term uses."""

    CONFIG = {
        "generator__network": "variational", "loss__lambda_kl": 0.5, "loss__lambda_l1": 1.0,
        "loss__lambda_adversarial": 0.0, "loss__lambda_perceptual": 0.0, "train__generator_steps": 1,
    }  # fmt: skip

    def test_latent_comes_from_same_pass_as_output(self, small, make_state, batches):
        config = small(**self.CONFIG)
        state, drawn = make_state(config), next(batches())
        before, calls = copy.deepcopy(state.generator), []
        state.generator.register_forward_hook(lambda module, images, output: calls.append(output))
        torch.manual_seed(5)
        losses = train_step(state, build_objective(config), iter([drawn]), updates_of(config))
        assert len(calls) == 1, "one forward a step"
        torch.manual_seed(5)
        with torch.no_grad():
            mean, log_variance, output = before(drawn[0], with_latent=True)
        torch.testing.assert_close(losses["kl"], kl_loss(mean, log_variance))
        torch.testing.assert_close(losses["kl_weighted"], 0.5 * losses["kl"])
        torch.testing.assert_close(losses["l1"], (output - drawn[1]).abs().mean())
        assert not any(value.requires_grad for value in losses.values())

    def test_directions_have_separate_latents(self, small, make_state, batches):
        """The generator of the other direction translates the outputs too; the KL term must not use that latent."""
        config = small(**self.CONFIG, loss__lambda_cycle=1.0)
        state, objective = make_state(config), build_objective(config)
        inputs = generator_inputs(state, objective, *next(batches()))
        for own, direction in zip(inputs, state.directions, strict=True):
            own.cycled  # noqa: B018
            direction.generator.eval()
            mean, log_variance, _ = direction.generator(own.source, with_latent=True)
            torch.testing.assert_close(own.within, (mean, log_variance))
