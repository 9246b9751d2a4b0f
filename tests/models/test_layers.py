import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.models.layers import ResidualBlock, doubled_widths, down, initialize, normalization, up

pytestmark = pytest.mark.unit


def test_instance_norm_is_affine_without_running_statistics():
    norm = normalization("instance", 3)
    assert norm.weight.shape == norm.bias.shape == (3,)
    assert norm.running_mean is None


def test_instance_norm_normalizes_each_image_separately():
    images = torch.randn(2, 3, 8, 8) * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1)
    normalized = normalization("instance", 3)(images)
    torch.testing.assert_close(normalized.std(dim=(2, 3), correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)


def test_normalization_batch_is_torch_layer_and_none_is_identity():
    assert isinstance(normalization("batch", 3), nn.BatchNorm2d)
    image = torch.randn(1, 3, 4, 4)
    assert normalization("none", 3)(image) is image


def test_normalization_refuses_unknown_name():
    with pytest.raises(ValueError, check=refusal("E-NETWORK-10", kind="layer")):
        normalization("layer", 3)


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 4), nn.ConvTranspose2d(64, 64, 4), nn.Linear(256, 256)])
def test_initialize_gives_layers_pix2pix_values(layer):
    initialize(layer)
    assert abs(float(layer.weight.detach().mean())) < 5e-4
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not layer.bias.any()


def test_doubled_widths_end_at_eight_times_base():
    assert doubled_widths(3, 6) == [3, 6, 12, 24, 24, 24]


def test_down_halves_and_up_doubles_sides():
    hidden = down(2, 5, norm="instance")(torch.randn(1, 2, 8, 12))
    assert hidden.shape == (1, 5, 4, 6)
    assert hidden.min() < 0, "a leaky slope"
    larger = up(5, 3, norm="instance")(hidden)
    assert larger.shape == (1, 3, 8, 12)
    assert larger.min() == 0


def test_residual_block_adds_to_its_input():
    block = ResidualBlock(3, norm="none")
    hidden = torch.randn(2, 3, 5, 6)
    assert not torch.equal(block(hidden), hidden)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(hidden), hidden)


def test_residual_block_keeps_flat_image_flat_with_reflection_only():
    flat = torch.ones(1, 2, 6, 6)
    reflected = ResidualBlock(2, norm="none", padding="reflect")(flat)
    torch.testing.assert_close(reflected, reflected[:, :, :1, :1].expand_as(reflected))
    padded = ResidualBlock(2, norm="none", padding="zeros")(flat)
    assert not torch.allclose(padded, padded[:, :, :1, :1].expand_as(padded))


def test_residual_block_dropout_acts_in_training_only():
    torch.manual_seed(0)
    block, hidden = ResidualBlock(4, norm="none", dropout=0.5), torch.randn(1, 4, 8, 8)
    assert not torch.equal(block.train()(hidden), block(hidden))
    assert torch.equal(block.eval()(hidden), block(hidden))
