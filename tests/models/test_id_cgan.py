import pytest
import torch
from refusal import refusal
from torch import nn
from torch.nn import functional

from medgan.models.id_cgan import ShallowNet

pytestmark = pytest.mark.unit


def independent_forward(weights, image):
    """ID-CGAN's published data flow, e1 to d6, with batch norm of one batch, on plain functions and a state dict."""

    def normalized(hidden, name):
        return functional.batch_norm(
            hidden, None, None, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True
        )

    def encoded(hidden, number):
        name = f"encoder.{number}"
        hidden = functional.prelu(hidden, weights[f"{name}.0.weight"])
        hidden = functional.conv2d(hidden, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"], padding=1)
        return normalized(hidden, f"{name}.2")

    def decoded(hidden, name):
        kernel, bias = weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]
        return functional.conv_transpose2d(hidden, kernel, bias, padding=1)

    e1 = functional.conv2d(image, weights["encoder.0.weight"], weights["encoder.0.bias"], padding=1)
    e2 = encoded(e1, 1)
    e3 = encoded(e2, 2)
    e4 = encoded(e3, 3)
    e6 = encoded(encoded(e4, 4), 5)
    d1 = normalized(decoded(functional.prelu(e6, weights["decoder.0.0.weight"]), "decoder.0"), "decoder.0.2")
    d2 = normalized(decoded(d1.relu(), "decoder.1"), "decoder.1.2") + e4
    d3 = normalized(decoded(d2.relu(), "decoder.2"), "decoder.2.2")
    d4 = normalized(decoded(d3.relu(), "decoder.3"), "decoder.3.2") + e2
    d5 = normalized(decoded(d4.relu(), "decoder.4"), "decoder.4.2")
    return decoded(d5.relu(), "last").tanh()


def test_shallow_net_equals_published_architecture():
    torch.manual_seed(0)
    network = ShallowNet(base_channels=4, norm="batch", in_channels=2, out_channels=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    network.double()
    image = torch.randn(2, 2, 9, 14, dtype=torch.float64)
    torch.testing.assert_close(network(image), independent_forward(network.state_dict(), image), rtol=1e-9, atol=1e-12)


def test_shallow_net_has_published_widths():
    with torch.device("meta"):
        network = ShallowNet()
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in layers] == [64, 64, 64, 64, 32, 1, 32, 64, 64, 64, 64, 1]
    assert {layer.kernel_size for layer in layers} == {(3, 3)}
    assert {layer.stride for layer in layers} == {(1, 1)}


def test_shallow_net_has_parameter_count_worked_by_hand():
    encoder = (9 * 64 + 64) + 3 * (9 * 64 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 + 1)
    decoder = (9 * 32 + 32) + (9 * 32 * 64 + 64) + 3 * (9 * 64 * 64 + 64) + (9 * 64 + 1)
    slopes = 6
    with torch.device("meta"):
        assert (
            sum(parameter.numel() for parameter in ShallowNet(norm="none").parameters()) == encoder + decoder + slopes
        )


def test_shallow_net_accepts_any_size_except_single_row():
    network = ShallowNet(base_channels=2)
    assert network(torch.zeros(1, 1, 7, 11)).shape == (1, 1, 7, 11)
    with pytest.raises(ValueError, check=refusal("E-NETWORK-14", least="2", rows="1", columns="11")):
        network(torch.zeros(1, 1, 1, 11))


@pytest.mark.parametrize("base_channels", [0, 3])
def test_shallow_net_refuses_base_channels_that_cannot_be_halved(base_channels):
    with pytest.raises(ValueError, check=refusal("E-NETWORK-08", base_channels=base_channels)):
        ShallowNet(base_channels=base_channels)
