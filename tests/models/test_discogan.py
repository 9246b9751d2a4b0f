import pytest
import torch
from torch import nn
from torch.nn import functional

from medgan.models.discogan import DiscoDiscriminator, DiscoGenerator

pytestmark = pytest.mark.unit


def independent_forward(weights, image):
    """Four layers down and four up, with instance norm in the inner layers, on plain functions and a state dict."""

    def layer(hidden, name, convolution, norm):
        hidden = convolution(hidden, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], stride=2, padding=1)
        if norm:
            scale, shift = weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]
            hidden = functional.instance_norm(hidden, weight=scale, bias=shift)
        return hidden

    hidden = image
    for number in range(4):
        hidden = layer(hidden, f"encoder.{number}", functional.conv2d, number in (1, 2))
        hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    for number in range(3):
        hidden = layer(hidden, f"decoder.{number}", functional.conv_transpose2d, True).clamp(min=0)
    return layer(hidden, "last", functional.conv_transpose2d, False).tanh()


def test_discogan_generator_equals_published_architecture():
    torch.manual_seed(0)
    network = DiscoGenerator(base_channels=2, in_channels=2, out_channels=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    network.double()
    image = torch.randn(2, 2, 48, 32, dtype=torch.float64)
    torch.testing.assert_close(network(image), independent_forward(network.state_dict(), image), rtol=1e-9, atol=1e-12)


def test_discogan_generator_has_parameter_count_worked_by_hand():
    encoder_kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    with torch.device("meta"):
        network = DiscoGenerator(in_channels=3, out_channels=3)
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]
    assert sum(layer.weight.numel() for layer in layers) == 2 * encoder_kernels
    assert sum(layer.bias.numel() for layer in layers) == 64 + 128 + 256 + 512 + 256 + 128 + 64 + 3


@pytest.mark.parametrize(("side", "places"), [(64, 1), (128, 5)])
def test_discogan_discriminator_features_and_logits_have_published_sizes(side, places):
    network = DiscoDiscriminator(base_channels=2, sees="image")
    image = torch.randn(1, 1, side, side)
    output = network(image, image)
    expected = [(1, 4, side // 4, side // 4), (1, 8, side // 8, side // 8), (1, 16, side // 16, side // 16)]
    assert [tuple(level.shape) for level in output.features] == expected
    assert output.logits.shape == (1, 1, places, places)
