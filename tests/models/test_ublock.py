import pytest
import torch
from torch import nn
from torch.nn import functional

from medgan.models.ublock import UBlock

pytestmark = pytest.mark.unit


def independent_forward(weights, image, *, depth, norm, output):
    """The U-block written out from PAPER.md section 1, on plain functions and a state dict."""

    def normalized(hidden, name):
        scale, shift = (weights[f"{name}.1.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        axes = (2, 3) if norm == "instance" else (0, 2, 3)
        mean = hidden.mean(axes, keepdim=True)
        variance = hidden.var(axes, keepdim=True, correction=0)
        return scale * (hidden - mean) / (variance + 1e-5).sqrt() + shift

    encoded = []
    hidden = image
    for level in range(depth):
        name = f"encoder.{level}"
        hidden = functional.conv2d(hidden, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], stride=2, padding=1)
        if norm != "none" and level not in (0, depth - 1):
            hidden = normalized(hidden, name)
        hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
        encoded.append(hidden)
    for number in range(depth - 1):
        name = f"decoder.{number}"
        kernel, bias = weights[f"{name}.0.weight"], weights[f"{name}.0.bias"]
        hidden = functional.conv_transpose2d(hidden, kernel, bias, stride=2, padding=1)
        if norm != "none":
            hidden = normalized(hidden, name)
        hidden = torch.cat([hidden.clamp(min=0), encoded[depth - 2 - number]], dim=1)
    hidden = functional.conv_transpose2d(hidden, weights["last.0.weight"], weights["last.0.bias"], stride=2, padding=1)
    return hidden.tanh() if output == "tanh" else hidden


def nested_forward(weights, image, *, depth, level=0):
    """The same with instance norm, nested as in pix2pix's code: each level wraps the one below and joins on the way up.

    What a level returns has been through the activation that the level above begins with.
    """

    def layer(hidden, name, convolution, norm):
        hidden = convolution(hidden, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], stride=2, padding=1)
        if norm:
            scale, shift = weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]
            hidden = functional.instance_norm(hidden, weight=scale, bias=shift)
        return hidden

    lower = layer(image, f"encoder.{level}", functional.conv2d, 0 < level < depth - 1)
    lower = functional.leaky_relu(lower, 0.2)
    if level < depth - 1:
        lower = torch.cat([nested_forward(weights, lower, depth=depth, level=level + 1), lower], dim=1)
    if level == 0:
        return layer(lower, "last", functional.conv_transpose2d, False).tanh()
    return layer(lower, f"decoder.{depth - 1 - level}", functional.conv_transpose2d, True).relu()


@pytest.mark.parametrize("depth", [2, 5])
def test_u_block_equals_nested_pix2pix_generator(depth):
    torch.manual_seed(0)
    block = UBlock(2, 3, base_channels=3, depth=depth, norm="instance")
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 2, 64, 32)
    expected = nested_forward(block.state_dict(), image, depth=depth)
    torch.testing.assert_close(block(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "output", "depth"),
    [("instance", "tanh", 4), ("batch", "tanh", 3), ("none", "none", 2), ("instance", "none", 5)],
)
def test_u_block_equals_description_in_paper(norm, output, depth):
    torch.manual_seed(0)
    block = UBlock(2, 3, base_channels=2, depth=depth, norm=norm, output=output).double()
    image = torch.randn(2, 2, 64, 32, dtype=torch.float64)
    expected = independent_forward(block.state_dict(), image, depth=depth, norm=norm, output=output)
    torch.testing.assert_close(block(image), expected, rtol=1e-9, atol=1e-12)


def test_u_block_of_full_size_has_54_413_313_parameters():
    with torch.device("meta"):
        block = UBlock(1, 1, base_channels=64, depth=8, norm="batch")
    assert sum(parameter.numel() for parameter in block.parameters()) == 54_413_313


def test_u_block_widths_double_up_to_eight_times_base():
    with torch.device("meta"):
        block = UBlock(1, 1, base_channels=64, depth=8, norm="batch")
    assert [layer[0].out_channels for layer in block.encoder] == [64, 128, 256, 512, 512, 512, 512, 512]
    entering = [layer[0].in_channels for layer in block.decoder] + [block.last[0].in_channels]
    assert entering == [512, 1024, 1024, 1024, 1024, 512, 256, 128]


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_u_block_accepts_one_image_down_to_one_pixel(norm):
    block = UBlock(1, 1, base_channels=2, depth=4, norm=norm).train()
    assert block(torch.randn(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_u_block_output_is_bounded_by_tanh_only():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 16, 16)
    free = UBlock(1, 1, base_channels=2, depth=2, norm="instance", output="none")
    bounded = UBlock(1, 1, base_channels=2, depth=2, norm="instance", output="tanh")
    bounded.load_state_dict(free.state_dict())
    torch.testing.assert_close(bounded(image), free(image).tanh())


def test_u_block_with_padding_reduces_256_pixels_to_one_in_eight_levels():
    side, unpadded = 256, []
    while side >= 4:
        side = (side - 4) // 2 + 1
        unpadded.append(side)
    assert unpadded == [127, 62, 30, 14, 6, 2], "two levels short, and no side of a skip is twice the next"
    block = UBlock(1, 1, base_channels=1, depth=8, norm="instance")
    sides = []
    for layer in block.encoder:
        layer.register_forward_hook(lambda _, inputs, output: sides.append(output.shape[-1]))
    with torch.no_grad():
        assert block(torch.zeros(1, 1, 256, 256)).shape == (1, 1, 256, 256)
    assert sides == [128, 64, 32, 16, 8, 4, 2, 1]


def test_u_block_dropout_acts_in_first_three_decoder_layers_in_training():
    torch.manual_seed(0)
    block = UBlock(1, 1, base_channels=4, depth=6, norm="instance", dropout=0.5)
    assert [isinstance(layer[-1], nn.Dropout) for layer in block.decoder] == [True, True, True, False, False]
    image = torch.randn(1, 1, 64, 64)
    assert not torch.equal(block.train()(image), block(image))
    assert torch.equal(block.eval()(image), block(image))


def test_u_block_dropout_changes_neither_weight_names_nor_values():
    blocks = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        blocks.append(UBlock(1, 1, base_channels=2, depth=5, norm="batch", dropout=dropout).eval())
    plain, dropped = (block.state_dict() for block in blocks)
    assert list(plain) == list(dropped)
    assert all(torch.equal(plain[name], dropped[name]) for name in plain)
    assert not any(isinstance(module, nn.Dropout) for module in blocks[0].modules())
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(blocks[0](image), blocks[1](image))
