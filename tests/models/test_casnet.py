import pytest
import torch

from medgan.models.casnet import CasNet


def small(**settings):
    return CasNet(**{"num_blocks": 3, "base_channels": 2, "depth": 3} | settings)


def test_the_chain_is_the_composition_of_its_blocks():
    torch.manual_seed(0)
    network = small()
    image = torch.rand(2, 1, 16, 24) * 2 - 1
    first, second, third = network.blocks
    output = network(image)
    assert output.shape == image.shape
    assert torch.equal(output, third(second(first(image))))


def test_blocks_share_no_weights():
    network = small()
    assert len({parameter.data_ptr() for parameter in network.parameters()}) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("between", "expected"), [("tanh", ["Tanh", "Tanh", "Tanh"]), ("none", ["Identity", "Identity", "Tanh"])]
)
def test_the_last_block_ends_in_tanh_whatever_stands_between(between, expected):
    blocks = small(between_blocks=between).blocks
    assert [type(block.last[-1]).__name__ for block in blocks] == expected


def test_channels_change_in_the_first_block_only():
    network = small(in_channels=3, out_channels=2)
    assert network(torch.randn(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    assert [block.encoder[0][0].in_channels for block in network.blocks] == [3, 2, 2]


def test_the_paper_generator_is_six_full_blocks():
    with torch.device("meta"):
        network = CasNet(num_blocks=6, base_channels=64, depth=8, norm="batch")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 6 * 54_413_313 == 326_479_878
    assert network.divisor == 256


def test_a_fresh_network_has_weights_near_zero_and_no_bias():
    torch.manual_seed(0)
    network = small(base_channels=16)
    for layer in (network.blocks[0].encoder[2][0], network.blocks[2].decoder[0][0]):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize(("rows", "columns"), [(12, 16), (16, 20), (4, 8)])
def test_sides_that_are_no_multiple_of_the_divisor_are_refused(rows, columns):
    with pytest.raises(ValueError, match=f"expected sides that are multiples of 8; got {rows} x {columns}"):
        small()(torch.zeros(1, 1, rows, columns))
