"""Properties that every preset has, as published and in its quick form."""

import pytest
import torch
from torch import nn

from medgan.config import TAUGHT, Config, flatten, uses_discriminator, validated, with_values
from medgan.presets.by_name import PRESETS, quick
from medgan.training.build_networks import (
    build_discriminator,
    build_generator,
    deepest_block,
    refuse_misfit,
    without_effect,
)
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step, update_generator

CPU = SingleProcess(torch.device("cpu"))


def batches():
    """Yields different smooth pairs without end, (source, target), each (2, 1, 64, 64)."""
    draw = torch.Generator().manual_seed(0)
    while True:
        coarse = torch.rand(4, 1, 8, 8, generator=draw) * 2 - 1
        images = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
        yield images[:2], images[2:]


def before_a_norm(network):
    """Returns the names of the biases that the normalization behind them removes."""
    names = set()
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            for (index, one), (_, other) in zip(
                module.named_children(), list(module.named_children())[1:], strict=False
            ):
                if isinstance(other, nn.InstanceNorm2d | nn.BatchNorm2d) and getattr(one, "bias", None) is not None:
                    names.add(f"{name}.{index}.bias")
    return names


@pytest.mark.parametrize("name", sorted(PRESETS))
class TestEveryPreset:
    def test_preset_is_valid_and_survives_serialization(self, name):
        config = PRESETS[name]()
        assert validated(config.model_dump(mode="json")) == config
        assert with_values(config, flatten(config)) == config
        assert PRESETS[name].__name__ == name
        assert PRESETS[name].__doc__

    def test_preset_with_extractor_downloads_trained_weights(self, name):
        config = PRESETS[name]()
        assert deepest_block(config) == 0 or config.extractor.weights == "download"

    def test_preset_translates_slice(self, name):
        config = with_values(PRESETS[name](), {"generator.base_channels": 2, "discriminator.base_channels": 2})
        image = torch.zeros(1, 1, config.data.size, config.data.size)
        with torch.no_grad():
            output = build_generator(config)(image)
            assert output.shape == image.shape
            assert build_discriminator(config)(image, output).logits.isfinite().all()

    def test_preset_accepts_batches_of_one(self, name):
        config = PRESETS[name]()
        assert (config.data.size, config.train.batch_size) == (256, 1)
        refuse_misfit(config, slices=1)

    def test_quick_preset_accepts_eight_slices_or_one_in_each_process(self, name):
        config = quick(PRESETS[name]())
        assert (config.data.size, config.train.batch_size) == (64, 8)
        assert config.extractor.weights == TAUGHT
        for slices in (8, 1):
            refuse_misfit(config, slices=slices)

    def test_quick_preset_changes_size_settings_only(self, name):
        whole, small = flatten(PRESETS[name]()), flatten(quick(PRESETS[name]()))
        changed = {path for path in whole if whole[path] != small[path]}
        assert changed <= {
            "data.size", "generator.num_blocks", "generator.base_channels", "discriminator.patch",
            "discriminator.base_channels", "extractor.weights", "loss.style_blocks", "loss.content_blocks",
            "loss.perceptual_weights", "optim.generator_lr", "train.epochs", "train.batch_size", "train.augment",
        }  # fmt: skip

    def test_preset_sets_only_values_with_effect(self, name):
        config = PRESETS[name]()
        values, defaults = flatten(config), flatten(Config())
        unused = {path for path in without_effect(config) if values[path] != defaults[path]}
        assert unused <= {"extractor.weights"}, "a user who adds a style loss must not get random weights"

    def test_preset_trains_one_step_with_finite_losses(self, name):
        config = with_values(quick(PRESETS[name]()), {"train.batch_size": 2, "extractor.weights": "random"})
        state, objective = build_state(config, CPU), build_objective(config)
        losses = train_step(state, objective.at(0.0), batches(), updates_of(config))
        assert [path for path, value in losses.items() if not value.isfinite()] == []
        assert ("discriminator" in losses) is uses_discriminator(config)
        for direction in state.directions:
            for network in (direction.generator, direction.discriminator):
                assert network is None or all(weight.isfinite().all() for weight in network.parameters())

    def test_preset_gradients_reach_every_generator_parameter(self, name):
        config = with_values(quick(PRESETS[name]()), {"train.batch_size": 2, "extractor.weights": "random"})
        state, objective = build_state(config, CPU), build_objective(config).at(0.0)
        update_generator(state, objective, next(batches()), updates_of(config))
        for direction in state.directions:
            left_out = before_a_norm(direction.generator)
            unreached = [path for path, weight in direction.generator.named_parameters() if not weight.grad.any()]
            assert set(unreached) <= left_out

    def test_preset_optimizers_are_adam_with_beta1_one_half(self, name):
        """Public code leaves beta1 at 0.9 (PAPER, section 6)."""
        state = build_state(with_values(quick(PRESETS[name]()), {"extractor.weights": "random"}), CPU)
        for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
            for group in optimizer.param_groups if optimizer is not None else ():
                assert isinstance(optimizer, torch.optim.Adam)
                assert group["betas"] == (0.5, 0.999)
