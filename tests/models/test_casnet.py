import pytest
import torch
from refusal import refusal

from medgan.models.casnet import CasNet
from medgan.models.refinegan import ResidualUBlock
from medgan.models.ublock import UBlock
from medgan.models.unet import DoubleUBlock

pytestmark = pytest.mark.unit


def small(**settings):
    return CasNet(**{"num_blocks": 3, "base_channels": 2, "depth": 3} | settings)


def test_casnet_output_is_composition_of_its_blocks():
    torch.manual_seed(0)
    network = small()
    image = torch.rand(2, 1, 16, 24) * 2 - 1
    first, second, third = network.blocks
    output = network(image)
    assert output.shape == image.shape
    assert torch.equal(output, third(second(first(image))))


def test_casnet_blocks_share_no_weights():
    network = small()
    assert len({parameter.data_ptr() for parameter in network.parameters()}) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("between", "expected"), [("tanh", ["Tanh", "Tanh", "Tanh"]), ("none", ["Identity", "Identity", "Tanh"])]
)
def test_casnet_last_block_ends_in_tanh_for_every_between_blocks(between, expected):
    blocks = small(between_blocks=between).blocks
    assert [type(block.last[-1]).__name__ for block in blocks] == expected


def test_casnet_channels_change_in_first_block_only():
    network = small(in_channels=3, out_channels=2)
    assert network(torch.randn(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    assert [block.encoder[0][0].in_channels for block in network.blocks] == [3, 2, 2]


def test_casnet_of_paper_has_parameters_of_six_full_blocks():
    with torch.device("meta"):
        network = CasNet(num_blocks=6, base_channels=64, depth=8, norm="batch")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 6 * 54_413_313 == 326_479_878
    assert network.divisor == 256


def test_new_casnet_has_weights_near_zero_and_zero_bias():
    torch.manual_seed(0)
    network = small(base_channels=16)
    for layer in (network.blocks[0].encoder[2][0], network.blocks[2].decoder[0][0]):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize(("rows", "columns"), [(12, 16), (16, 20), (4, 8)])
def test_casnet_refuses_sides_that_divisor_does_not_divide(rows, columns):
    with pytest.raises(ValueError, check=refusal("E-NETWORK-13", divisor=8, rows=rows, columns=columns)):
        small()(torch.zeros(1, 1, rows, columns))


def test_casnet_returns_output_of_every_block_on_request():
    torch.manual_seed(0)
    network = small()
    image = torch.rand(1, 1, 16, 16) * 2 - 1
    outputs = network(image, every_block=True)
    assert isinstance(outputs, tuple)
    assert len(outputs) == 3
    assert torch.equal(outputs[-1], network(image))
    assert torch.equal(outputs[1], network.blocks[1](outputs[0]))
    assert torch.equal(outputs[0], network.blocks[0](image))


@pytest.mark.parametrize(("block", "kind"), [("u", UBlock), ("residual", ResidualUBlock), ("double", DoubleUBlock)])
def test_casnet_block_kind_is_chosen_by_name(block, kind):
    network = small(block=block)
    assert [type(one) for one in network.blocks] == [kind] * 3
    assert network(torch.zeros(1, 1, 16, 8)).shape == (1, 1, 16, 8)


def test_casnet_gives_change_adds_output_to_source_within_range():
    torch.manual_seed(0)
    plain, changing = small(), small(gives="change")
    changing.load_state_dict(plain.state_dict())
    image = torch.rand(1, 1, 16, 16) * 2 - 1
    assert torch.equal(changing(image), (image + plain(image)).clamp(-1, 1))
    assert torch.equal(changing(image, every_block=True)[-1], changing(image))
    torch.testing.assert_close(changing(image), image, atol=0.1, rtol=0)  # an untrained network changes almost nothing


def test_casnet_later_blocks_get_source_beside_previous_output():
    torch.manual_seed(0)
    network = small(block_input="previous_and_source", in_channels=2)
    assert [block.encoder[0][0].in_channels for block in network.blocks] == [2, 3, 3]
    image = torch.rand(1, 2, 16, 16) * 2 - 1
    first, second, third = network.blocks
    one = first(image)
    two = second(torch.cat([one, image], dim=1))
    assert torch.equal(network(image), third(torch.cat([two, image], dim=1)))


def test_casnet_weight_names_are_those_of_plain_chain():
    names = [name for name in small().state_dict() if name.startswith("blocks.1")]
    assert names[:2] == ["blocks.1.encoder.0.0.weight", "blocks.1.encoder.0.0.bias"]
    assert list(small(dropout=0.5).state_dict()) == list(small().state_dict())


def test_casnet_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network, image = small(dropout=0.5), torch.randn(1, 1, 16, 16)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_blocks": 0}, refusal("E-NETWORK-01", most_blocks="8", num_blocks="0")),
        ({"num_blocks": 9}, refusal("E-NETWORK-01", most_blocks="8", num_blocks="9")),
        ({"block": "dense"}, refusal("E-NETWORK-02", blocks="u, residual, double", block="dense")),
        ({"gives": "both"}, refusal("E-NETWORK-04", gives="both")),
        ({"gives": "change", "in_channels": 2}, refusal("E-NETWORK-05", in_channels="2", out_channels="1")),
        ({"block_input": "source"}, refusal("E-NETWORK-03", block_input="source")),
    ],
)
def test_casnet_refuses_invalid_settings(settings, expected):
    with pytest.raises(ValueError, check=expected):
        small(**settings)


class TestRecompute:
    def gradients(self, recompute, image, **settings):
        torch.manual_seed(4)
        network = small(recompute=recompute, norm="instance", **settings)
        outputs = network(image, every_block=True)
        sum(output.square().mean() for output in outputs).backward()
        return outputs[-1], [parameter.grad for parameter in network.parameters()]

    @pytest.mark.parametrize("block", ["u", "residual", "double"])
    @pytest.mark.parametrize(
        "settings", [{}, {"dropout": 0.5}, {"block_input": "previous_and_source"}, {"gives": "change"}]
    )
    def test_recompute_gives_bitwise_equal_gradients(self, block, settings):
        image = torch.rand(2, 1, 16, 16) * 2 - 1
        (kept, plain), (again, same) = (
            self.gradients(how, image, block=block, **settings) for how in ("none", "blocks")
        )
        assert torch.equal(kept, again)
        assert all(torch.equal(*pair) for pair in zip(plain, same, strict=True))

    def test_recompute_runs_blocks_twice_with_gradient_and_once_without(self):
        network, calls = small(recompute="blocks"), []
        for block in network.blocks:
            block.register_forward_pre_hook(lambda module, images: calls.append(module))
        image = torch.rand(1, 1, 16, 16)
        network(image).sum().backward()
        assert len(calls) == 2 * 3
        calls.clear()
        with torch.no_grad():
            network(image)
        network.eval()(image)
        assert len(calls) == 2 * 3

    def test_recompute_refuses_batch_normalization(self):
        with pytest.raises(ValueError, check=refusal("E-NETWORK-07", norm="batch")):
            small(recompute="blocks", norm="batch")

    def test_recompute_refuses_unknown_word(self):
        with pytest.raises(ValueError, check=refusal("E-NETWORK-06", recompute="all")):
            small(recompute="all")
