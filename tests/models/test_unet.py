import pytest
import torch
from torch import nn
from torch.nn import functional

from medgan.models.unet import DoubleUBlock

pytestmark = pytest.mark.unit


def independent_forward(weights, image, depth):
    """The U-Net of double convolutions without norm, written out from its figure, on plain functions."""

    def parts(name):
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def double(hidden, name):
        for layer in (0, 3):
            hidden = functional.conv2d(hidden, *parts(f"{name}.{layer}"), padding=1).clamp(min=0)
        return hidden

    encoded = [double(image, "encoder.0")]
    for number in range(1, depth + 1):
        encoded.append(double(functional.max_pool2d(encoded[-1], 2), f"encoder.{number}"))
    hidden = encoded.pop()
    for number in range(depth):
        hidden = functional.conv_transpose2d(hidden, *parts(f"up.{number}"), stride=2)
        hidden = double(torch.cat([hidden, encoded.pop()], dim=1), f"decoder.{number}")
    return functional.conv2d(hidden, *parts("last.0"), padding=1).tanh()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_double_u_block_is_encoder_decoder_with_concatenated_skips(depth):
    torch.manual_seed(0)
    block = DoubleUBlock(2, 3, base_channels=2, depth=depth, norm="none").double()
    image = torch.randn(2, 2, 32, 16, dtype=torch.float64)
    torch.testing.assert_close(
        block(image), independent_forward(block.state_dict(), image, depth), rtol=1e-9, atol=1e-12
    )


def test_double_u_block_has_parameter_count_worked_by_hand():
    with torch.device("meta"):
        block = DoubleUBlock(1, 2, base_channels=64, depth=4, norm="none")
    # 31,031,685 with 1 -> 2 channels and a 1024-wide bottleneck (a common count); here the widths end at 512
    by_hand = sum(
        9 * (entering * leaving + leaving * leaving) + 2 * leaving
        for entering, leaving in [(1, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
        + [(1024, 512), (512, 256), (256, 128), (128, 64)]
    )
    by_hand += sum(
        4 * entering * leaving + leaving for entering, leaving in [(512, 512), (512, 256), (256, 128), (128, 64)]
    )
    assert sum(parameter.numel() for parameter in block.parameters()) == by_hand + 9 * 64 * 2 + 2


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_double_u_block_accepts_one_image_down_to_one_pixel(norm):
    block = DoubleUBlock(1, 1, base_channels=2, depth=4, norm=norm).train()
    assert block(torch.randn(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_double_u_block_normalizes_every_level_except_bottleneck():
    block = DoubleUBlock(1, 1, base_channels=2, depth=2, norm="instance")
    numbers = [sum(isinstance(part, nn.InstanceNorm2d) for part in level.modules()) for level in block.encoder]
    assert numbers == [2, 2, 0]
    assert all(sum(isinstance(part, nn.InstanceNorm2d) for part in level.modules()) == 2 for level in block.decoder)


def test_double_u_block_dropout_acts_in_first_three_decoder_levels():
    block = DoubleUBlock(1, 1, base_channels=2, depth=4, norm="instance", dropout=0.5)
    numbers = [sum(isinstance(part, nn.Dropout) for part in level.modules()) for level in block.decoder]
    assert numbers == [1, 1, 1, 0]


def test_double_u_block_finest_skip_keeps_every_pixel():
    """One pixel of the source moves the same pixel of the output through the first level alone."""
    torch.manual_seed(0)
    block = DoubleUBlock(1, 1, base_channels=4, depth=2, norm="none", output="none").double()
    for up in block.up:
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    block(image)[0, 0, 8, 8].backward()
    reached = image.grad[0, 0].nonzero()
    assert reached.min() >= 3 and reached.max() <= 13
    assert image.grad[0, 0, 8, 8] != 0
