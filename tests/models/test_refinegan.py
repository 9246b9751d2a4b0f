import pytest
import torch
from torch import nn
from torch.nn import functional

from medgan.models.refinegan import ResidualDiscriminator, ResidualUBlock

pytestmark = pytest.mark.unit


def independent_forward(weights, image, depth):
    """The residual U-block without norm, written out from RefineGAN's figure, on plain functions and a state dict."""

    def parts(name):
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def level(hidden, name, convolution, **settings):
        hidden = functional.leaky_relu(convolution(hidden, *parts(f"{name}.0"), stride=2, padding=1, **settings), 0.2)
        inner = functional.conv2d(hidden, *parts(f"{name}.3.residual.0"), padding=1).clamp(min=0)
        return functional.conv2d(inner, *parts(f"{name}.3.residual.4"), padding=1) + hidden

    encoded = [image]
    for number in range(depth):
        encoded.append(level(encoded[-1], f"encoder.{number}", functional.conv2d))
    hidden = encoded.pop()
    for number in range(depth):
        hidden = level(hidden, f"decoder.{number}", functional.conv_transpose2d, output_padding=1)
        if number < depth - 1:
            hidden = hidden + encoded.pop()
    return functional.conv2d(hidden, *parts("last.0"), padding=1).tanh()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_residual_u_block_is_encoder_decoder_with_added_skips(depth):
    torch.manual_seed(0)
    block = ResidualUBlock(2, 3, base_channels=2, depth=depth, norm="none").double()
    image = torch.randn(2, 2, 32, 16, dtype=torch.float64)
    torch.testing.assert_close(
        block(image), independent_forward(block.state_dict(), image, depth), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_residual_u_block_accepts_one_image_down_to_one_pixel(norm):
    block = ResidualUBlock(1, 1, base_channels=2, depth=4, norm=norm).train()
    assert block(torch.randn(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_residual_u_block_normalizes_every_level_except_bottleneck():
    block = ResidualUBlock(1, 1, base_channels=2, depth=3, norm="instance")
    numbers = [sum(isinstance(part, nn.InstanceNorm2d) for part in level.modules()) for level in block.encoder]
    assert numbers == [3, 3, 0]
    assert all(sum(isinstance(part, nn.InstanceNorm2d) for part in level.modules()) == 3 for level in block.decoder)


def test_residual_u_block_widths_double_to_eight_times_base_and_return():
    with torch.device("meta"):
        block = ResidualUBlock(1, 1, base_channels=64, depth=4, norm="batch")
    assert [level[0].out_channels for level in block.encoder] == [64, 128, 256, 512]
    assert [level[0].out_channels for level in block.decoder] == [256, 128, 64, 64]


def test_residual_u_block_dropout_acts_in_first_three_decoder_levels():
    torch.manual_seed(0)
    block = ResidualUBlock(1, 1, base_channels=4, depth=5, norm="instance", dropout=0.5)
    rates = [part.p for level in block.decoder for part in level.modules() if isinstance(part, nn.Dropout)]
    assert rates == [0.5, 0.5, 0.5, 0, 0]
    image = torch.randn(1, 1, 32, 32)
    assert not torch.equal(block.train()(image), block(image))
    assert torch.equal(block.eval()(image), block(image))


def test_residual_u_block_output_is_bounded_by_tanh_only():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 16, 16)
    free = ResidualUBlock(1, 1, base_channels=2, depth=2, norm="instance", output="none")
    bounded = ResidualUBlock(1, 1, base_channels=2, depth=2, norm="instance", output="tanh")
    bounded.load_state_dict(free.state_dict())
    torch.testing.assert_close(bounded(image), free(image).tanh())


def test_residual_discriminator_has_four_levels_and_logit_per_16_pixels():
    network = ResidualDiscriminator(base_channels=4)
    output = network(torch.zeros(1, 1, 64, 32), torch.zeros(1, 1, 64, 32))
    expected = [(1, 4, 32, 16), (1, 8, 16, 8), (1, 16, 8, 4), (1, 32, 4, 2)]
    assert [tuple(level.shape) for level in output.features] == expected
    assert output.logits.shape == (1, 1, 4, 2)
