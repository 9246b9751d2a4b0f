import pytest
import torch
from torch.nn import functional

from medgan.models.unet import UBlock


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


@pytest.mark.parametrize(
    ("norm", "output", "depth"),
    [("instance", "tanh", 4), ("batch", "tanh", 3), ("none", "none", 2), ("instance", "none", 5)],
)
def test_the_block_is_the_papers(norm, output, depth):
    torch.manual_seed(0)
    block = UBlock(2, 3, base_channels=2, depth=depth, norm=norm, output=output).double()
    image = torch.randn(2, 2, 64, 32, dtype=torch.float64)
    expected = independent_forward(block.state_dict(), image, depth=depth, norm=norm, output=output)
    torch.testing.assert_close(block(image), expected, rtol=1e-9, atol=1e-12)


def test_a_full_block_has_54_413_313_parameters():
    with torch.device("meta"):
        block = UBlock(1, 1, base_channels=64, depth=8, norm="batch")
    assert sum(parameter.numel() for parameter in block.parameters()) == 54_413_313


def test_widths_double_up_to_eight_times_the_base():
    with torch.device("meta"):
        block = UBlock(1, 1, base_channels=64, depth=8, norm="batch")
    assert [layer[0].out_channels for layer in block.encoder] == [64, 128, 256, 512, 512, 512, 512, 512]
    entering = [layer[0].in_channels for layer in block.decoder] + [block.last[0].in_channels]
    assert entering == [512, 1024, 1024, 1024, 1024, 512, 256, 128]


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_one_image_passes_down_to_one_pixel_in_training_mode(norm):
    block = UBlock(1, 1, base_channels=2, depth=4, norm=norm).train()
    assert block(torch.randn(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_tanh_bounds_the_output_and_none_does_not():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 16, 16)
    free = UBlock(1, 1, base_channels=2, depth=2, norm="instance", output="none")
    bounded = UBlock(1, 1, base_channels=2, depth=2, norm="instance", output="tanh")
    bounded.load_state_dict(free.state_dict())
    torch.testing.assert_close(bounded(image), free(image).tanh())
