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


def configured(**values):
    small = {"data.size": 32, "generator.base_channels": 2, "discriminator.base_channels": 2, "train.batch_size": 2}
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


@pytest.fixture
def views():
    torch.manual_seed(0)
    source, target, output = (torch.rand(3, 2, 1, 32, 32) * 2 - 1).unbind()
    discriminator = build_discriminator(configured()).eval()
    there, back = (build_generator(configured(), direction=direction).eval() for direction in (0, 1))
    return GeneratorInputs(
        source, target, output, there, discriminator, load_extractor("vgg19", "random", 3), back, (output * 0.5, target)
    )


EXPECTED = {
    "adversarial": lambda views: ADVERSARIAL["vanilla"].fool(views.discriminator(views.source, views.output).logits),
    "l1": lambda views: (views.output - views.target).abs().mean(),
    "l2": lambda views: ((views.output - views.target) ** 2).mean(),
    "tv": lambda views: tv_loss(views.output),
    "stages": lambda views: (views.output * 0.5 - views.target).abs().mean(),  # the second stage is the target
    "feature_matching": lambda views: feature_matching_loss(
        views.discriminator(views.source, views.output).features,
        views.discriminator(views.source, views.target).features,
    ),
    "cycle": lambda views: (views.inverse(views.output) - views.source).abs().mean(),
    "identity": lambda views: (views.generator(views.target) - views.target).abs().mean(),
    "mmd": lambda views: mmd_loss(views.output, views.target),
    "kl": lambda views: kl_loss(views.output * 0.5, views.target),  # as if these were a latent's mean and log variance
    "perceptual": lambda views: perceptual_loss(
        (views.output, *views.discriminator(views.source, views.output).features),
        (views.target, *views.discriminator(views.source, views.target).features),
    ),
    "style": lambda views: style_loss([views.extractor(views.output)[2]], [views.extractor(views.target)[2]]),
    "content": lambda views: content_loss(views.extractor(views.output)[:2], views.extractor(views.target)[:2]),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_weight_is_of_its_own_term(name, views):
    weights = {f"loss__lambda_{term}": 2.5 if term == name else 0.0 for term in EXPECTED}
    needs = {
        "identity": {"loss__lambda_cycle": 1e-9},
        "stages": {"generator__num_blocks": 2},
        "kl": {"generator__network": "variational"},
    }.get(name, {})
    config = configured(**(weights | needs), loss__style_blocks=[3], loss__content_blocks=[1, 2])
    total, logged = weighted_sum(build_objective(config).generator, views)
    expected = EXPECTED[name](views)
    torch.testing.assert_close(logged[name], expected.detach())
    torch.testing.assert_close(total, 2.5 * expected)
    others = {"cycle", "cycle_weighted"} if name == "identity" else set()
    assert set(logged) == {name, f"{name}_weighted"} | others


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_the_adversarial_objective_is_chosen_by_name(name, views):
    judge = {"discriminator__network": "autoencoder"} if name == "began" else {}
    objective = build_objective(configured(loss__adversarial=name, **judge))
    torch.testing.assert_close(
        weighted_sum(objective.generator, views)[1]["adversarial"], ADVERSARIAL[name].fool(views.logits).detach()
    )


@pytest.fixture
def judgement(views):
    real = views.discriminator(views.source, views.target)
    fake = views.discriminator(views.source, views.output)
    return DiscriminatorInputs(views.source, views.target, views.output, views.discriminator, real, fake)


def test_the_discriminator_has_no_terms_where_nothing_asks_it():
    assert build_objective(configured(loss__lambda_adversarial=0.0, loss__lambda_l1=1.0)).discriminator == {}


def test_the_discriminators_terms_add_up_by_weight(judgement):
    config = configured(
        loss__adversarial="lsgan", loss__lambda_discriminator=0.5, loss__lambda_margin=2.0, loss__margin=3.0,
        loss__lambda_perceptual=1.0, loss__perceptual_weights=[5.0, 1.0, 4.0], loss__lambda_gradient_penalty=10.0,
    )  # fmt: skip
    torch.manual_seed(7)
    total, logged = weighted_sum(build_objective(config).discriminator, judgement)
    real, fake = judgement.real, judgement.fake
    adversarial = ((real.logits - 1) ** 2).mean() / 2 + (fake.logits**2).mean() / 2
    distance = perceptual_loss((judgement.output, *fake.features), (judgement.target, *real.features), [5.0, 1.0, 4.0])
    torch.manual_seed(7)
    penalty = gradient_penalty(
        lambda image: judgement.discriminator(judgement.source, image).logits, judgement.target, judgement.output
    )
    torch.testing.assert_close(logged["margin"], torch.relu(3.0 - distance).detach())
    torch.testing.assert_close(total, 0.5 * adversarial + 2 * torch.relu(3.0 - distance) + 10 * penalty)


def test_the_cycles_share_grows_with_the_training(views):
    config = configured(loss__lambda_cycle=2.0, loss__lambda_l1=1.0, loss__cycle_share=[0.1, 0.5])
    objective = build_objective(config)
    for progress, share in ((0.0, 0.1), (0.5, 0.3), (1.0, 0.5)):
        logged = weighted_sum(objective.at(progress).generator, views)[1]
        torch.testing.assert_close(logged["cycle_weighted"], 2 * share * logged["cycle"])
        torch.testing.assert_close(logged["l1_weighted"], (1 - share) * logged["l1"])
    assert build_objective(configured()).at(0.5).generator.keys() == objective.generator.keys()
