import pytest
import torch

from medgan.build.networks import build_discriminator, build_generator, deepest_block
from medgan.config import flatten, validated, with_values
from medgan.presets.table import PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
class TestEveryPreset:
    def test_is_valid_and_survives_being_written_down(self, name):
        config = PRESETS[name]()
        assert validated(config.model_dump(mode="json")) == config
        assert PRESETS[name].__name__ == name
        assert PRESETS[name].__doc__

    def test_asks_for_weights_trained_on_images_where_it_uses_an_extractor(self, name):
        config = PRESETS[name]()
        assert deepest_block(config) == 0 or config.extractor.weights == "download"

    def test_translates_a_slice(self, name):
        config = with_values(PRESETS[name](), {"generator.base_channels": 2, "discriminator.base_channels": 2})
        image = torch.zeros(1, 1, config.data.size, config.data.size)
        with torch.no_grad():
            output = build_generator(config)(image)
            assert output.shape == image.shape
            assert build_discriminator(config)(image, output).logits.isfinite().all()


def test_medgan_has_the_papers_numbers():
    flat = flatten(PRESETS["medgan"]())
    paper = {
        "data.size": 256, "generator.num_blocks": 6, "generator.base_channels": 64, "generator.between_blocks": "tanh",
        "discriminator.patch": 16, "discriminator.base_channels": 64, "discriminator.spectral_norm": True,
        "loss.adversarial": "vanilla", "loss.lambda_adversarial": 1, "loss.lambda_perceptual": 20,
        "loss.lambda_style": 1e-4, "loss.lambda_content": 1e-4, "loss.lambda_l1": 0, "loss.style_blocks": [1, 5],
        "loss.content_blocks": [1, 2, 3, 4], "optim.generator_lr": 2e-4, "optim.discriminator_lr": 2e-4,
        "optim.beta1": 0.5, "optim.beta2": 0.999, "train.epochs": 200, "train.batch_size": 1,
        "train.generator_steps": 3, "generator.norm": "instance",
    }  # fmt: skip
    assert {path: flat[path] for path in paper} == paper
