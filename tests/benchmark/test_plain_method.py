"""The timed method equals the method that `medgan train` builds."""

from dataclasses import replace

import pytest
import torch

from medgan.benchmark import plain_method as method
from medgan.benchmark.plain_method import PAPER, QUICK, UPDATES, random_batches
from medgan.config import generator_depth, with_values
from medgan.presets.by_name import configured, preset_named
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step

CPU = torch.device("cpu")
SMALL = replace(QUICK, size=32, base_channels=4)


@pytest.fixture(scope="module")
def config():
    return configured(
        "medgan", {"generator.num_blocks": 2, "optim.generator_lr": 2e-4, "extractor.weights": "random"}, small=True
    )


def test_plain_setting_trains_same_step_as_preset(config):
    small = {"data.size": 32, "generator.base_channels": 4, "discriminator.base_channels": 4}
    config, setting = with_values(config, small), SMALL
    trained = [
        (build_state(config, SingleProcess(CPU)), build_objective(config)),
        (method.build_state(setting, CPU), method.build_objective(setting)),
    ]
    rows = []
    for state, objective in trained:
        state.extractor = method.build_extractor(setting)  # random either way, not the same numbers
        batches = random_batches(setting, CPU)
        rows.append([train_step(state, objective, batches, UPDATES) for _ in range(2)])
    assert rows[0] == rows[1]
    assert updates_of(config) == UPDATES


def test_plain_setting_has_optimizers_of_preset(config):
    mine, theirs = method.build_state(QUICK, CPU), build_state(config, SingleProcess(CPU))
    for name in ("generator_optimizer", "discriminator_optimizer"):
        one, other = getattr(mine, name), getattr(theirs, name)
        assert type(one) is type(other)
        assert one.defaults == other.defaults


@pytest.mark.parametrize(("setting", "preset"), [(QUICK, None), (PAPER, preset_named("medgan"))])
def test_plain_setting_has_values_of_preset(setting, preset, config):
    preset = preset or config
    assert preset.data.size == setting.size
    assert (preset.generator.num_blocks, preset.generator.base_channels) == (setting.num_blocks, setting.base_channels)
    assert generator_depth(preset) == setting.depth
    assert preset.discriminator.base_channels == setting.base_channels
    assert (preset.loss.style_blocks, preset.loss.content_blocks) == (setting.style_blocks, setting.content_blocks)
    assert preset.train.batch_size == setting.batch_size
    assert preset.optim.generator_lr == preset.optim.discriminator_lr == method.RATE


def test_plain_setting_has_loss_weights_of_preset():
    objectives = build_objective(preset_named("medgan")), method.build_objective(PAPER)
    for of in ("generator", "discriminator"):
        mine, theirs = ({n: weight for n, (weight, _) in getattr(one, of).items() if weight} for one in objectives)
        assert mine == theirs
