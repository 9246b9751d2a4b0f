import pytest
import torch

from medgan import build
from medgan.build import (
    build_discriminator,
    build_generator,
    build_objective,
    build_state,
    deepest_block,
    frozen_extractor,
)
from medgan.config import Config, with_values
from medgan.engine.runtime import SingleProcess
from medgan.losses.adversarial import ADVERSARIAL
from medgan.losses.content import content_loss
from medgan.losses.objective import Views
from medgan.losses.perceptual import perceptual_loss
from medgan.losses.style import style_loss
from medgan.models.extractor import load_extractor

CPU = SingleProcess(torch.device("cpu"))


def configured(**values):
    small = {"data.size": 32, "generator.base_channels": 2, "discriminator.base_channels": 2}
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("builder", [build_generator, build_discriminator])
def test_a_network_depends_on_the_seed_alone(builder):
    first = builder(configured(train__seed=1))
    torch.manual_seed(99)
    assert same(first, builder(configured(train__seed=1)))
    assert not same(first, builder(configured(train__seed=2)))


def test_the_generator_has_what_is_set():
    config = configured(
        generator__num_blocks=3, generator__norm="batch", generator__between_blocks="none", generator__depth=3
    )
    generator = build_generator(config)
    assert len(generator.blocks) == 3
    assert generator.divisor == 8
    assert generator.blocks[0].encoder[0][0].out_channels == 2
    names = [type(module).__name__ for module in generator.blocks[0].modules()]
    assert "BatchNorm2d" in names
    assert "Tanh" not in names


def test_the_depth_follows_the_image():
    assert build_generator(configured()).divisor == 32


@pytest.mark.parametrize("spectral", [True, False])
def test_the_discriminator_has_what_is_set(spectral):
    config = configured(
        discriminator__patch=34 if spectral else 16, data__size=64, discriminator__spectral_norm=spectral
    )
    discriminator = build_discriminator(config)
    assert discriminator.patch == (34 if spectral else 16)
    assert any("parametrizations" in name for name in discriminator.state_dict()) is spectral
    assert "InstanceNorm2d" in [type(module).__name__ for module in discriminator.modules()]


def test_each_network_has_its_own_adam_with_beta1_one_half():
    state = build_state(configured(optim__generator_lr=1e-3, optim__discriminator_lr=2e-3), CPU)
    for network, optimizer, rate in [
        (state.generator, state.generator_optimizer, 1e-3),
        (state.discriminator, state.discriminator_optimizer, 2e-3),
    ]:
        assert isinstance(optimizer, torch.optim.Adam)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (rate, (0.5, 0.999))
        assert {id(one) for one in group["params"]} == {id(one) for one in network.parameters()}


@pytest.mark.parametrize(("style", "content", "deepest"), [(0, 0, 0), (1, 0, 3), (0, 1, 4), (1, 1, 4), (1e-4, 0, 3)])
def test_the_extractor_is_as_deep_as_the_weighted_terms_need(style, content, deepest):
    config = configured(
        loss__lambda_style=style, loss__lambda_content=content, loss__style_blocks=[3, 1], loss__content_blocks=[2, 4]
    )
    assert deepest_block(config) == deepest


def test_without_style_and_content_no_extractor_is_loaded(monkeypatch):
    monkeypatch.setattr(build, "load_extractor", lambda *arguments: pytest.fail("loaded"))
    frozen_extractor.cache_clear()
    assert build_state(configured(extractor__weights="some file"), CPU).extractor is None


def test_an_extractor_is_built_once_a_process():
    config = configured(loss__lambda_style=1.0, loss__style_blocks=[1])
    assert build_state(config, CPU).extractor is build_state(config, CPU).extractor


@pytest.fixture
def views():
    torch.manual_seed(0)
    source, target, output = (torch.rand(3, 2, 1, 32, 32) * 2 - 1).unbind()
    discriminator = build_discriminator(configured()).eval()
    return Views(source, target, output, discriminator, load_extractor("random", 3))


EXPECTED = {
    "adversarial": lambda views: ADVERSARIAL["vanilla"].fool(views.discriminator(views.source, views.output).logits),
    "l1": lambda views: (views.output - views.target).abs().mean(),
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
    config = configured(**weights, loss__style_blocks=[3], loss__content_blocks=[1, 2])
    total, logged = build_objective(config).generator_loss(views)
    expected = EXPECTED[name](views)
    torch.testing.assert_close(logged[name], expected.detach())
    torch.testing.assert_close(total, 2.5 * expected)
    assert set(logged) == {name, f"{name}_weighted"}


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_the_adversarial_objective_is_chosen_by_name(name, views):
    objective = build_objective(configured(loss__adversarial=name))
    assert objective.adversarial is ADVERSARIAL[name]
    torch.testing.assert_close(objective.generator_loss(views)[1]["adversarial"], ADVERSARIAL[name].fool(views.logits))
