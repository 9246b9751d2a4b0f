from pathlib import Path

import pytest
import torch
from torch.nn import functional

from medgan.models.extractor import load_extractor
from medgan.models.vgg import Vgg19

pytestmark = pytest.mark.unit

REAL = Path(__file__).parents[3] / "shared" / "weights" / "vgg19_conv1_1-conv3_4.pth"


def independent_block_two(state, image):
    """relu1_2 and relu2_2 of a grey image in [-1, 1], on plain functions."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    hidden = ((torch.cat([image] * 3, dim=1) + 1) / 2 - mean) / std
    outputs = []
    for numbers in ((0, 2), (5, 7)):
        for number in numbers:
            kernel, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            hidden = functional.conv2d(hidden, kernel, bias, padding=1).clamp(min=0)
        outputs.append(hidden)
        hidden = functional.max_pool2d(hidden, 2)
    return outputs


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason=f"no VGG-19 weights at {REAL}")
def test_vgg19_with_real_weights_serves_three_blocks():
    network = load_extractor("vgg19", str(REAL), 3)
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    features = network(image)
    assert [tuple(block.shape) for block in features] == [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8)]
    expected = independent_block_two(torch.load(REAL, weights_only=True), image)
    for one, other in zip(features[:2], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_vgg19_returns_last_activation_of_each_block():
    network = Vgg19(5)
    assert network.ends == [4, 9, 18, 27, 36]
    assert len(network.state_dict()) == 2 * 16, "sixteen convolutions, and nothing else to load"
    assert len(network.features) == 36, "the last pooling is never needed"


def test_vgg19_random_weights_equal_those_of_golden_curves():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = Vgg19(2)
        for layer in expected.features:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    for one, other in zip(
        load_extractor("vgg19", "random", 2).state_dict().values(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
