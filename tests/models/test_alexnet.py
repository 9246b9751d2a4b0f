from pathlib import Path

import pytest
import torch
from torch.nn import functional

from medgan.models.alexnet import AlexNet
from medgan.models.extractor import load_extractor

pytestmark = pytest.mark.unit

REAL = Path(__file__).parents[3] / "shared" / "weights" / "alexnet_features.pth"


def independent(state, image):
    """The five activations of a grey image in [-1, 1], on plain functions."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    hidden, outputs = ((torch.cat([image] * 3, dim=1) + 1) / 2 - mean) / std, []
    for number, stride, padding, pool in ((0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0), (10, 1, 1, 0)):
        if pool:
            hidden = functional.max_pool2d(hidden, 3, 2)
        kernel, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        hidden = functional.conv2d(hidden, kernel, bias, stride=stride, padding=padding).clamp(min=0)
        outputs.append(hidden)
    return outputs


def test_alexnet_activations_have_published_sizes():
    assert [tuple(one.shape[1:]) for one in AlexNet()(torch.zeros(1, 1, 224, 224))] == [
        (64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13), (256, 13, 13)
    ]  # fmt: skip


def test_alexnet_has_parameter_count_of_torchvision_convolutions():
    assert sum(parameter.numel() for parameter in AlexNet().parameters()) == 2_469_696


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason=f"no AlexNet weights at {REAL}")
def test_alexnet_with_real_weights_equals_plain_functions():
    image = torch.rand(2, 1, 64, 80) * 2 - 1
    expected = independent(torch.load(REAL, weights_only=True), image)
    for one, other in zip(load_extractor("alexnet", str(REAL), 5)(image), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
