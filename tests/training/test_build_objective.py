import pytest
import torch

from medgan.config import Config, with_values
from medgan.losses.adversarial import ADVERSARIAL, gradient_penalty
from medgan.losses.batch_matching import feature_matching_loss, mmd_loss
from medgan.losses.content import content_loss
from medgan.losses.kl_divergence import kl_loss
from medgan.losses.objective import DiscriminatorInputs, GeneratorInputs, weighted_sum
from medgan.losses.perceptual import perceptual_loss
from medgan.losses.pixel_losses import tv_loss
from medgan.losses.style import style_loss
from medgan.models.extractor import load_extractor
from medgan.training.build_networks import build_discriminator, build_generator
from medgan.training.build_objective import build_objective

pytestmark = pytest.mark.unit


def configured(**values):
    small = {"data.size": 32, "generator.base_channels": 2, "discriminator.base_channels": 2, "train.batch_size": 2}
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    source, target, output = (torch.rand(3, 2, 1, 32, 32) * 2 - 1).unbind()
    discriminator = build_discriminator(configured()).eval()
    there, back = (build_generator(configured(), direction=direction).eval() for direction in (0, 1))
    return GeneratorInputs(
        source, target, output, there, discriminator, load_extractor("vgg19", "random", 3), back, (output * 0.5, target)
    )


EXPECTED = {
    "adversarial": lambda inputs: ADVERSARIAL["vanilla"].fool(
        inputs.discriminator(inputs.source, inputs.output).logits
    ),
    "l1": lambda inputs: (inputs.output - inputs.target).abs().mean(),
    "l2": lambda inputs: ((inputs.output - inputs.target) ** 2).mean(),
    "tv": lambda inputs: tv_loss(inputs.output),
    "stages": lambda inputs: (inputs.output * 0.5 - inputs.target).abs().mean(),  # the second stage is the target
    "feature_matching": lambda inputs: feature_matching_loss(
        inputs.discriminator(inputs.source, inputs.output).features,
        inputs.discriminator(inputs.source, inputs.target).features,
    ),
    "cycle": lambda inputs: (inputs.inverse(inputs.output) - inputs.source).abs().mean(),
    "identity": lambda inputs: (inputs.generator(inputs.target) - inputs.target).abs().mean(),
    "mmd": lambda inputs: mmd_loss(inputs.output, inputs.target),
    "kl": lambda inputs: kl_loss(
        inputs.output * 0.5, inputs.target
    ),  # as if these were a latent's mean and log variance
    "perceptual": lambda inputs: perceptual_loss(
        (inputs.output, *inputs.discriminator(inputs.source, inputs.output).features),
        (inputs.target, *inputs.discriminator(inputs.source, inputs.target).features),
    ),
    "style": lambda inputs: style_loss([inputs.extractor(inputs.output)[2]], [inputs.extractor(inputs.target)[2]]),
    "content": lambda inputs: content_loss(inputs.extractor(inputs.output)[:2], inputs.extractor(inputs.target)[:2]),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_lambda_setting_weights_term_of_same_name(name, inputs):
    weights = {f"loss__lambda_{term}": 2.5 if term == name else 0.0 for term in EXPECTED}
    needs = {
        "identity": {"loss__lambda_cycle": 1e-9},
        "stages": {"generator__num_blocks": 2},
        "kl": {"generator__network": "variational"},
    }.get(name, {})
    config = configured(**(weights | needs), loss__style_blocks=[3], loss__content_blocks=[1, 2])
    total, logged = weighted_sum(build_objective(config).generator, inputs)
    expected = EXPECTED[name](inputs)
    torch.testing.assert_close(logged[name], expected.detach())
    torch.testing.assert_close(total, 2.5 * expected)
    others = {"cycle", "cycle_weighted"} if name == "identity" else set()
    assert set(logged) == {name, f"{name}_weighted"} | others


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_adversarial_loss_is_chosen_by_name(name, inputs):
    network = {"discriminator__network": "autoencoder"} if name == "began" else {}
    objective = build_objective(configured(loss__adversarial=name, **network))
    torch.testing.assert_close(
        weighted_sum(objective.generator, inputs)[1]["adversarial"], ADVERSARIAL[name].fool(inputs.logits).detach()
    )


@pytest.fixture
def discriminator_inputs(inputs):
    real = inputs.discriminator(inputs.source, inputs.target)
    fake = inputs.discriminator(inputs.source, inputs.output)
    return DiscriminatorInputs(inputs.source, inputs.target, inputs.output, inputs.discriminator, real, fake)


def test_discriminator_has_no_terms_if_no_generator_term_uses_discriminator():
    assert build_objective(configured(loss__lambda_adversarial=0.0, loss__lambda_l1=1.0)).discriminator == {}


def test_discriminator_loss_is_weighted_sum_of_terms(discriminator_inputs):
    config = configured(
        loss__adversarial="lsgan", loss__lambda_discriminator=0.5, loss__lambda_margin=2.0, loss__margin=3.0,
        loss__lambda_perceptual=1.0, loss__perceptual_weights=[5.0, 1.0, 4.0], loss__lambda_gradient_penalty=10.0,
    )  # fmt: skip
    torch.manual_seed(7)
    total, logged = weighted_sum(build_objective(config).discriminator, discriminator_inputs)
    real, fake = discriminator_inputs.real, discriminator_inputs.fake
    adversarial = ((real.logits - 1) ** 2).mean() / 2 + (fake.logits**2).mean() / 2
    distance = perceptual_loss(
        (discriminator_inputs.output, *fake.features), (discriminator_inputs.target, *real.features), [5.0, 1.0, 4.0]
    )
    torch.manual_seed(7)
    penalty = gradient_penalty(
        lambda image: discriminator_inputs.discriminator(discriminator_inputs.source, image).logits,
        discriminator_inputs.target,
        discriminator_inputs.output,
    )
    torch.testing.assert_close(logged["margin"], torch.relu(3.0 - distance).detach())
    torch.testing.assert_close(total, 0.5 * adversarial + 2 * torch.relu(3.0 - distance) + 10 * penalty)


def test_cycle_share_grows_with_progress(inputs):
    config = configured(loss__lambda_cycle=2.0, loss__lambda_l1=1.0, loss__cycle_share=[0.1, 0.5])
    objective = build_objective(config)
    for progress, share in ((0.0, 0.1), (0.5, 0.3), (1.0, 0.5)):
        logged = weighted_sum(objective.at(progress).generator, inputs)[1]
        torch.testing.assert_close(logged["cycle_weighted"], 2 * share * logged["cycle"])
        torch.testing.assert_close(logged["l1_weighted"], (1 - share) * logged["l1"])
    assert build_objective(configured()).at(0.5).generator.keys() == objective.generator.keys()
