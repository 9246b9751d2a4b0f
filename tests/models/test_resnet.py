import pytest
import torch
from refusal import refusal
from torch import nn
from torch.nn import functional

from medgan.models.resnet import ResNet

pytestmark = pytest.mark.unit


def independent_forward(weights, image, num_blocks):
    """ResNet with instance norm on plain functions: padded by hand, transposed convolutions by inserting zeros."""

    def parts(name):
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def normalized(hidden, name):
        scale, shift = parts(name)
        return functional.instance_norm(hidden, weight=scale, bias=shift, eps=1e-5)

    def reflected(hidden, name, width):
        return functional.conv2d(functional.pad(hidden, [width] * 4, mode="reflect"), *parts(name))

    def enlarged(hidden, name):
        kernel, bias = parts(name)
        batch, channels, rows, columns = hidden.shape
        spread = hidden.new_zeros(batch, channels, 2 * rows, 2 * columns)
        spread[:, :, ::2, ::2] = hidden
        return functional.conv2d(functional.pad(spread, [1, 1, 1, 1]), kernel.transpose(0, 1).flip(2, 3), bias)

    hidden = normalized(reflected(image, "layers.0", 3), "layers.1").relu()
    for number in (3, 6):
        hidden = functional.conv2d(hidden, *parts(f"layers.{number}"), stride=2, padding=1)
        hidden = normalized(hidden, f"layers.{number + 1}").relu()
    for number in range(9, 9 + num_blocks):
        name = f"layers.{number}.residual"
        inner = normalized(reflected(hidden, f"{name}.0", 1), f"{name}.1").relu()
        hidden = hidden + normalized(reflected(inner, f"{name}.4", 1), f"{name}.5")
    number = 9 + num_blocks
    for first in (number, number + 3):
        hidden = normalized(enlarged(hidden, f"layers.{first}"), f"layers.{first + 1}").relu()
    return reflected(hidden, f"layers.{number + 6}", 3).tanh()


@pytest.mark.parametrize("num_blocks", [9, 2])
def test_resnet_equals_published_architecture(num_blocks):
    torch.manual_seed(0)
    network = ResNet(base_channels=3, num_blocks=num_blocks, in_channels=2, out_channels=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 2, 24, 16)
    expected = independent_forward(network.state_dict(), image, num_blocks)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


def test_resnet_of_paper_has_11_378_million_parameters():
    """Worked out layer by layer: kernel area x channels in x channels out + one bias a channel out."""
    stem, head = 49 * 3 * 64 + 64, 49 * 64 * 3 + 3
    downwards = (9 * 64 * 128 + 128) + (9 * 128 * 256 + 256)
    upwards = (9 * 256 * 128 + 128) + (9 * 128 * 64 + 64)
    residual = 9 * 2 * (9 * 256 * 256 + 256)
    total = stem + downwards + residual + upwards + head
    assert round(total / 1e6, 3) == 11.378, "the number the authors' code prints, with a norm without parameters"
    norms = 2 * (64 + 128 + 256 + 9 * 2 * 256 + 128 + 64)
    with torch.device("meta"):
        plain = ResNet(norm="none", in_channels=3, out_channels=3)
        affine = ResNet(norm="instance", in_channels=3, out_channels=3)
    assert sum(parameter.numel() for parameter in plain.parameters()) == total == 11_378_179
    assert sum(parameter.numel() for parameter in affine.parameters()) == total + norms


def test_resnet_dropout_acts_in_every_residual_block_in_training_only():
    torch.manual_seed(0)
    network = ResNet(base_channels=4, num_blocks=3, dropout=0.5)
    assert [part.p for part in network.modules() if isinstance(part, nn.Dropout)] == [0.5] * 3
    image = torch.randn(1, 1, 16, 16)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


def test_resnet_refuses_image_whose_residual_map_has_one_row():
    with pytest.raises(ValueError, check=refusal("E-NETWORK-14", least="8", rows="4", columns="16")):
        ResNet(base_channels=2, num_blocks=1)(torch.zeros(1, 1, 4, 16))
