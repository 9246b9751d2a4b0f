import itertools

import pytest
import torch
from torch import nn

from medgan.config import with_values
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.training.step import Updates, generator_inputs, train_step, update_discriminator, update_generator


class Recorded(nn.Module):
    """Records the images of every call, and whether the weights were frozen then."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.calls = []

    def forward(self, *images):
        frozen = not any(parameter.requires_grad for parameter in self.network.parameters())
        self.calls.append((images, frozen))
        return self.network(*images)


def copies(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def changed(network, before):
    return any(not torch.equal(*pair) for pair in zip(network.parameters(), before, strict=True))


@pytest.fixture
def all_losses(small):
    return small(loss__lambda_style=1e-4, loss__lambda_content=1e-4, loss__lambda_l1=1.0,
                 loss__style_blocks=[1, 2], loss__content_blocks=[1, 2])  # fmt: skip


JUDGEMENT = ("judgement_real", "judgement_fake")
TERMS = ("adversarial", "perceptual", "feature_matching", "style", "content", "l1", "l2", "tv")


@pytest.fixture
def every_term(small):
    """All loss terms that a method without a cycle can have at the same time."""
    return small(**{f"loss__lambda_{term}": 1.0 for term in TERMS}, loss__style_blocks=[1, 2], loss__content_blocks=[2])


def test_generator_sees_three_batches_and_discriminator_last_one(small, make_state, batches):
    state, objective = make_state(small()), build_objective(small())
    direction = state.directions[0]
    direction.generator, direction.discriminator = Recorded(direction.generator), Recorded(direction.discriminator)
    drawn = list(itertools.islice(batches(), 5))
    rest = iter(drawn)
    train_step(state, objective, rest, updates=Updates(generator=3))

    given = [images[0] for images, _ in state.generator.calls]
    assert [torch.equal(*pair) for pair in zip(given, [source for source, _ in drawn[:3]], strict=True)] == [True] * 3
    *_, real, fake = state.directions[0].discriminator.calls
    source, target = drawn[2]
    assert torch.equal(real[0][0], source)
    assert torch.equal(real[0][1], target)
    assert torch.equal(fake[0][0], source)
    assert fake[0][1].shape == target.shape
    assert len(list(rest)) == 2, "a step takes three batches, not more"


def test_fake_image_is_detached_last_output_before_update(small, make_state, batches):
    state, objective = make_state(small()), build_objective(small())
    outputs = []
    state.generator.register_forward_hook(lambda module, images, output: outputs.append(output))
    state.directions[0].discriminator = Recorded(state.directions[0].discriminator)
    train_step(state, objective, batches(), updates=Updates(generator=3))
    fake = state.directions[0].discriminator.calls[-1][0][1]
    assert len(outputs) == 3
    assert not fake.requires_grad
    assert torch.equal(fake, outputs[-1])


def test_update_discriminator_leaves_generator_unchanged(small, make_state, batches):
    state, objective = make_state(small()), build_objective(small())
    source, target = next(batches())
    before, discriminator_before = copies(state.generator), copies(state.directions[0].discriminator)
    update_discriminator(state, objective, [generator_inputs(state, objective, source, target)], Updates())
    assert not changed(state.generator, before)
    assert all(parameter.grad is None for parameter in state.generator.parameters())
    assert changed(state.directions[0].discriminator, discriminator_before)


def test_update_generator_leaves_discriminator_unchanged(all_losses, make_state, batches):
    state, objective = make_state(all_losses), build_objective(all_losses)
    source, target = next(batches())
    before, discriminator_before = copies(state.generator), copies(state.directions[0].discriminator)
    update_generator(state, objective, (source, target), Updates())
    assert changed(state.generator, before)
    assert not changed(state.directions[0].discriminator, discriminator_before)
    assert all(parameter.grad is None for parameter in state.directions[0].discriminator.parameters())
    assert all(parameter.grad is None for parameter in state.extractor.parameters())
    assert all(parameter.requires_grad for parameter in state.directions[0].discriminator.parameters()), (
        "trainable again for the update of the discriminator"
    )


def test_update_generator_leaves_gradients_of_discriminator_unchanged(small, make_state, batches):
    state, objective = make_state(small()), build_objective(small())
    source, target = next(batches())
    for parameter in state.directions[0].discriminator.parameters():
        parameter.grad = torch.ones_like(parameter)
    update_generator(state, objective, (source, target), Updates())
    assert all((parameter.grad == 1).all() for parameter in state.directions[0].discriminator.parameters())


@pytest.mark.parametrize("term", ["adversarial", "l1", "perceptual", "style", "content"])
def test_each_term_alone_reaches_every_weight_of_generator(term, all_losses, small, make_state, batches):
    names = ("adversarial", "l1", "perceptual", "style", "content")
    alone = {f"loss__lambda_{name}": 1.0 if name == term else 0.0 for name in names}
    config = small(**alone, loss__style_blocks=[1], loss__content_blocks=[1], generator__norm="none")
    state, objective = make_state(config), build_objective(config)
    source, target = next(batches())
    update_generator(state, objective, (source, target), Updates())
    assert all(parameter.grad.abs().sum() > 0 for parameter in state.generator.parameters())


def test_perceptual_gradient_flows_through_features_of_discriminator(small, make_state, batches):
    """If the features were detached, only the gradient of the pixel level would remain."""
    config = small(loss__lambda_adversarial=0.0, loss__lambda_perceptual=1.0)
    source, target = next(batches())
    gradients = []
    for name in ("perceptual", "l1"):
        state, objective = make_state(config), build_objective(config)
        if name == "l1":
            objective = build_objective(
                small(loss__lambda_adversarial=0.0, loss__lambda_perceptual=0.0, loss__lambda_l1=1.0)
            )
        update_generator(state, objective, (source, target), Updates())
        gradients.append(next(state.generator.parameters()).grad)
    assert not torch.allclose(*gradients)


def test_perceptual_gradient_reaches_generator_and_not_discriminator(small, make_state, batches):
    config = small(loss__lambda_adversarial=0.0, loss__lambda_perceptual=1.0)
    state, objective = make_state(config), build_objective(config)
    update_generator(state, objective, next(batches()), Updates())
    assert all(parameter.grad is not None for parameter in state.generator.parameters())
    assert all(parameter.grad is None for parameter in state.directions[0].discriminator.parameters())


def test_update_discriminator_uses_only_gradients_of_own_loss(small, make_state, batches):
    """The generator update before it neither adds to these gradients nor replaces them (PAPER, section 6)."""
    gradients = []
    for turn_before in (False, True):
        state, objective = make_state(small()), build_objective(small())
        state.directions[0].discriminator.eval()  # spectral norm would take a step of its power iteration
        batch = next(batches())
        seen = [generator_inputs(state, objective, *batch)]
        if turn_before:
            seen, _ = update_generator(state, objective, batch, Updates())
        update_discriminator(state, objective, seen, Updates())
        gradients.append([parameter.grad for parameter in state.directions[0].discriminator.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_discriminator_loss_depends_on_source(small, make_state, batches):
    """A discriminator that is not conditional would not see whether the image belongs to the source."""
    state, objective = make_state(small()), build_objective(small())
    state.directions[0].discriminator.eval()
    source, target = next(batches())
    (inputs,) = generator_inputs(state, objective, source, target)
    loss = update_discriminator(state, objective, [[inputs]], Updates())["discriminator"]
    other = make_state(small())
    other.directions[0].discriminator.eval()
    inputs.source = source.flip(3)
    assert update_discriminator(other, objective, [[inputs]], Updates())["discriminator"] != loss


def test_update_generator_runs_discriminator_once_per_pair(all_losses, make_state, batches):
    state, objective = make_state(all_losses), build_objective(all_losses)
    direction = state.directions[0]
    direction.discriminator, state.extractor = Recorded(direction.discriminator), Recorded(state.extractor)
    source, target = next(batches())
    [[inputs]], _ = update_generator(state, objective, (source, target), Updates())
    output = inputs.output
    asked = [(torch.equal(images[0], source), torch.equal(images[1], output), torch.equal(images[1], target), frozen)
             for images, frozen in state.directions[0].discriminator.calls]  # fmt: skip
    assert sorted(asked) == [(True, False, True, True), (True, True, False, True)]
    seen = [(torch.equal(images[0], output), torch.equal(images[0], target)) for images, _ in state.extractor.calls]
    assert sorted(seen) == [(False, True), (True, False)]


def test_update_generator_with_all_terms_runs_networks_once_per_image(every_term, make_state, batches):
    state, objective = make_state(every_term), build_objective(every_term)
    direction = state.directions[0]
    direction.discriminator, state.extractor = Recorded(direction.discriminator), Recorded(state.extractor)
    source, target = next(batches())
    [[inputs]], losses = update_generator(state, objective, (source, target), Updates())
    assert set(losses) == {*TERMS, *(f"{term}_weighted" for term in TERMS)}
    asked = [
        [torch.equal(image, known) for known in (inputs.output, target)]
        for (_, image), _ in direction.discriminator.calls
    ]
    assert sorted(asked) == [[False, True], [True, False]]
    seen = [[torch.equal(image, known) for known in (inputs.output, target)] for (image,), _ in state.extractor.calls]
    assert sorted(seen) == [[False, True], [True, False]]


def test_extractor_never_runs_without_style_and_content(every_term, make_state, batches):
    state = make_state(every_term)
    state.extractor = Recorded(state.extractor)
    config = with_values(every_term, {"loss.lambda_style": 0.0, "loss.lambda_content": 0.0})
    train_step(state, build_objective(config), batches(), updates_of(config))
    assert state.extractor.calls == []


def test_discriminator_does_not_see_target_without_perceptual_term(small, make_state, batches):
    config = small(loss__lambda_perceptual=0.0)
    state, objective = make_state(config), build_objective(config)
    state.directions[0].discriminator = Recorded(state.directions[0].discriminator)
    source, target = next(batches())
    [[inputs]], _ = update_generator(state, objective, (source, target), Updates())
    output = inputs.output
    assert [torch.equal(images[1], output) for images, _ in state.directions[0].discriminator.calls] == [True]


def test_state_has_no_extractor_without_style_and_content(small, make_state, batches):
    state = make_state(small(extractor__weights="/nowhere"))
    assert state.extractor is None
    train_step(state, build_objective(small()), batches(), updates=Updates(generator=1))


def test_train_step_changes_both_networks_and_logs_detached_scalars(all_losses, make_state, batches):
    state, objective = make_state(all_losses), build_objective(all_losses)
    before, discriminator_before = copies(state.generator), copies(state.directions[0].discriminator)
    losses = train_step(state, objective, batches(), updates=Updates(generator=3))
    assert changed(state.generator, before)
    assert changed(state.directions[0].discriminator, discriminator_before)
    assert all(value.shape == () and not value.requires_grad for value in losses.values())
    raw = {"adversarial": 1.0, "l1": 1.0, "perceptual": 20.0, "style": 1e-4, "content": 1e-4}
    assert set(losses) == {*raw, *(f"{name}_weighted" for name in raw), "discriminator", *JUDGEMENT}
    for name, weight in raw.items():
        torch.testing.assert_close(losses[f"{name}_weighted"], weight * losses[name])


def test_gradients_of_update_do_not_add_to_next_update(small, make_state, batches):
    """After an update with learning rate 0, a second update on the same batch has the gradients of a first one."""
    config = small()
    source, target = next(batches())
    alone, after = make_state(config), make_state(config)
    objective = build_objective(config)
    for state in (alone, after):
        state.generator_optimizer = torch.optim.SGD(state.generator.parameters(), lr=0.0)
        state.directions[0].discriminator.eval()  # spectral norm would take a step of its power iteration
    update_generator(after, objective, (source, target), Updates())
    for state in (alone, after):
        update_generator(state, objective, (source, target), Updates())
    for one, other in zip(alone.generator.parameters(), after.generator.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_train_step_lowers_objective_of_generator(small, make_state, batches):
    config = small(
        loss__lambda_adversarial=0.0, loss__lambda_perceptual=0.0, loss__lambda_l1=1.0, optim__generator_lr=2e-3
    )
    state, objective = make_state(config), build_objective(config)
    batch = next(batches())
    first, *_, last = (
        train_step(state, objective, itertools.repeat(batch), updates_of(config))["l1"] for _ in range(15)
    )
    assert last < 0.9 * first


def test_discriminator_learns_to_tell_real_from_fake(small, make_state, batches):
    config = small(optim__discriminator_lr=2e-3)
    state, objective = make_state(config), build_objective(config)
    source, target = next(batches())
    inputs = generator_inputs(state, objective, source, target)
    losses = [update_discriminator(state, objective, [inputs], Updates())["discriminator"] for _ in range(30)]
    output = inputs[0].output
    assert losses[-1] < 0.5 * losses[0]
    discriminator = state.directions[0].discriminator.eval()
    assert discriminator(source, target).logits.mean() > discriminator(source, output).logits.mean()


def test_judgement_is_mean_logit_of_real_and_of_generated_images(small, make_state, batches):
    config = small(discriminator__spectral_norm=False, train__generator_steps=1)
    state, objective, batch = make_state(config), build_objective(config), next(batches())
    inputs, _ = update_generator(state, objective, batch, updates_of(config))
    discriminator, (one,) = state.directions[0].discriminator, inputs[0]
    expected = [float(discriminator(one.source, image).logits.mean()) for image in (one.target, one.output)]
    losses = update_discriminator(state, objective, inputs, updates_of(config))
    assert [float(losses[f"judgement_{name}"]) for name in ("real", "fake")] == pytest.approx(expected)
