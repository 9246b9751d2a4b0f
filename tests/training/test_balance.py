"""BEGAN's balance: the loss of the discriminator, and the weight k that balances it."""

import pytest
import torch

from medgan.config import Config, with_values
from medgan.losses.objective import DiscriminatorInputs, weighted_sum
from medgan.training.build_networks import build_discriminator
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.checkpoint import restore, save_state
from medgan.training.runtime import SingleProcess
from medgan.training.step import generator_inputs, train_step, update_generator

CPU = SingleProcess(torch.device("cpu"))


def configured(**values):
    small = {
        "data.size": 32, "generator.base_channels": 2, "discriminator.base_channels": 2, "train.batch_size": 2,
        "loss.adversarial": "began", "discriminator.network": "autoencoder", "optim.discriminator_lr": 1e-3,
    }  # fmt: skip
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


def batches():
    draw = torch.Generator().manual_seed(0)
    while True:
        yield tuple((torch.rand(2, 2, 1, 32, 32, generator=draw) * 2 - 1).unbind())


def errors(discriminator, source, image):
    """Returns the mean error with which the discriminator restores an image."""
    return float(-discriminator(source, image).logits.detach().mean())


@pytest.fixture
def discriminator_inputs():
    torch.manual_seed(0)
    source, target, output = (torch.rand(3, 2, 1, 32, 32) * 2 - 1).unbind()
    discriminator = build_discriminator(configured(discriminator__spectral_norm=False))
    real, fake = discriminator(source, target), discriminator(source, output / 4)
    return DiscriminatorInputs(source, target, output / 4, discriminator, real, fake)


def test_began_discriminator_loss_is_real_error_minus_k_times_fake_error(discriminator_inputs):
    discriminator = discriminator_inputs.discriminator
    discriminator.fake_share.fill_(0.3)
    real, fake = (
        errors(discriminator, discriminator_inputs.source, image)
        for image in (discriminator_inputs.target, discriminator_inputs.output)
    )
    total, _ = weighted_sum(
        build_objective(configured(loss__lambda_discriminator=2.0)).discriminator, discriminator_inputs
    )
    assert float(total.detach()) == pytest.approx(2 * (real - 0.3 * fake))
    assert float(discriminator.fake_share) == pytest.approx(0.3 + 0.001 * (0.5 * real - fake))


def test_began_discriminator_gradient_uses_k_before_update_of_k(discriminator_inputs):
    discriminator = discriminator_inputs.discriminator
    discriminator.fake_share.fill_(0.3)
    weighted_sum(build_objective(configured()).discriminator, discriminator_inputs)[0].backward()
    gradient = [parameter.grad.clone() for parameter in discriminator.parameters()]
    discriminator.zero_grad()
    error = -discriminator(discriminator_inputs.source, discriminator_inputs.target).logits.mean()
    (error + 0.3 * discriminator(discriminator_inputs.source, discriminator_inputs.output).logits.mean()).backward()
    for one, parameter in zip(gradient, discriminator.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_began_generator_loss_is_restoration_error_of_output():
    config = configured()
    state, objective = build_state(config, CPU), build_objective(config)
    batch = next(batches())
    (inputs,) = generator_inputs(state, objective, *batch)
    discriminator = state.directions[0].discriminator
    value = weighted_sum(objective.generator, inputs)[1]["adversarial"]
    assert float(value) == pytest.approx(errors(discriminator, inputs.source, inputs.output))
    before = discriminator.fake_share.clone()
    update_generator(state, objective, batch, updates_of(config))
    assert torch.equal(discriminator.fake_share, before), "k follows the discriminator's updates alone"


@pytest.mark.parametrize("updates", [1, 2])
def test_k_is_updated_once_per_discriminator_update(updates, monkeypatch):
    config = configured(train__discriminator_steps=updates, train__generator_steps=3)
    state, objective = build_state(config, CPU), build_objective(config)
    discriminator, seen = state.directions[0].discriminator, []
    monkeypatch.setattr(discriminator, "rebalance", lambda real, fake: seen.append((float(real), float(fake))))
    train_step(state, objective, batches(), updates_of(config))
    assert len(seen) == updates
    assert all(real > 0 and fake > 0 for real, fake in seen)


def test_discriminators_of_both_directions_have_separate_k():
    config = configured(loss__lambda_cycle=1.0)
    state, objective = build_state(config, CPU), build_objective(config)
    state.directions[1].discriminator.fake_share.fill_(0.5)
    train_step(state, objective, batches(), updates_of(config))
    shares = [float(direction.discriminator.fake_share) for direction in state.directions]
    assert shares[0] < 0.01 < shares[1] < 1
    assert shares[1] != 0.5


def test_resumed_training_continues_with_saved_k(tmp_path):
    config = configured()
    state, objective, stream = build_state(config, CPU), build_objective(config), batches()
    state.directions[0].discriminator.fake_share.fill_(0.25)
    train_step(state, objective, stream, updates_of(config))
    save_state(tmp_path, state)
    again = build_state(config, CPU)
    assert restore(tmp_path, again)
    share = again.directions[0].discriminator.fake_share
    assert torch.equal(share, state.directions[0].discriminator.fake_share) and share not in (0, 0.25)
    batch = next(stream)
    one, other = (train_step(each, objective, iter([batch]), updates_of(config)) for each in (state, again))
    assert one == other


def test_began_training_lowers_adversarial_loss():
    config = configured(optim__generator_lr=3e-3, generator__base_channels=4, discriminator__base_channels=4)
    state, objective = build_state(config, CPU), build_objective(config)
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 1, 4, 4, generator=draw) * 2 - 1
    source = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    rows = [train_step(state, objective, iter([(source, -source)]), updates_of(config)) for _ in range(60)]
    first, last = (sum(float(row["adversarial"]) for row in part) for part in (rows[:10], rows[-10:]))
    assert last < 0.7 * first
