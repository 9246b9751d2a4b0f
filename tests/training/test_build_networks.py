import pytest
import torch

from medgan.config import Config, with_values
from medgan.training import build_networks as networks
from medgan.training.build_networks import build_discriminator, build_generator, deepest_block
from medgan.training.build_training import build_state
from medgan.training.frozen_features import frozen_extractor
from medgan.training.runtime import SingleProcess

pytestmark = pytest.mark.unit

CPU = SingleProcess(torch.device("cpu"))


def configured(**values):
    small = {"data.size": 32, "generator.base_channels": 2, "discriminator.base_channels": 2}
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("builder", [build_generator, build_discriminator])
def test_weights_of_network_depend_only_on_seed(builder):
    first = builder(configured(train__seed=1))
    torch.manual_seed(99)
    assert same(first, builder(configured(train__seed=1)))
    assert not same(first, builder(configured(train__seed=2)))


def test_build_generator_follows_settings():
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


def test_generator_depth_follows_image_size():
    assert build_generator(configured()).divisor == 32


@pytest.mark.parametrize("spectral", [True, False])
def test_build_discriminator_follows_settings(spectral):
    config = configured(
        discriminator__patch=34 if spectral else 16, data__size=64, discriminator__spectral_norm=spectral
    )
    discriminator = build_discriminator(config)
    assert discriminator.patch == (34 if spectral else 16)
    assert any("parametrizations" in name for name in discriminator.state_dict()) is spectral
    assert "InstanceNorm2d" in [type(module).__name__ for module in discriminator.modules()]


def test_networks_have_separate_adam_with_beta1_one_half():
    state = build_state(configured(optim__generator_lr=1e-3, optim__discriminator_lr=2e-3), CPU)
    for network, optimizer, rate in [
        (state.directions[0].generator, state.generator_optimizer, 1e-3),
        (state.directions[0].discriminator, state.discriminator_optimizer, 2e-3),
    ]:
        assert isinstance(optimizer, torch.optim.Adam)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (rate, (0.5, 0.999))
        assert {id(one) for one in group["params"]} == {id(one) for one in network.parameters()}


@pytest.mark.parametrize(("style", "content", "deepest"), [(0, 0, 0), (1, 0, 3), (0, 1, 4), (1, 1, 4), (1e-4, 0, 3)])
def test_deepest_block_is_deepest_one_of_weighted_terms(style, content, deepest):
    config = configured(
        loss__lambda_style=style, loss__lambda_content=content, loss__style_blocks=[3, 1], loss__content_blocks=[2, 4]
    )
    assert deepest_block(config) == deepest


def test_build_state_without_style_and_content_loads_no_extractor(monkeypatch):
    monkeypatch.setattr(networks, "load_extractor", lambda *arguments: pytest.fail("loaded"))
    frozen_extractor.cache_clear()
    assert build_state(configured(extractor__weights="some file"), CPU).extractor is None


def test_extractor_is_built_once_per_process():
    config = configured(loss__lambda_style=1.0, loss__style_blocks=[1])
    assert build_state(config, CPU).extractor is build_state(config, CPU).extractor
