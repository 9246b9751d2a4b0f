from pathlib import Path

import pytest
import torch
from torch.nn import functional

from medgan.models.extractor import load_extractor
from medgan.models.squeezenet import SqueezeNet

pytestmark = pytest.mark.unit

REAL = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet1_1_features.pth"
SLICES = [(0,), ("pool", 3, 4), ("pool", 6, 7), ("pool", 9), (10,), (11,), (12,)]
"""The layers of each block after the first activation; a number is a fire module's."""


def independent(state, image):
    """The seven blocks of a grey image in [-1, 1], on plain functions."""

    def convolved(hidden, name, **options):
        return functional.conv2d(hidden, state[f"{name}.weight"], state[f"{name}.bias"], **options).clamp(min=0)

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    hidden, outputs = ((torch.cat([image] * 3, dim=1) + 1) / 2 - mean) / std, []
    for layers in SLICES:
        for layer in layers:
            if layer == "pool":
                hidden = functional.max_pool2d(hidden, 3, 2, ceil_mode=True)
            elif layer == 0:
                hidden = convolved(hidden, "0", stride=2)
            else:
                narrow = convolved(hidden, f"{layer}.squeeze")
                wide = [convolved(narrow, f"{layer}.expand{k}x{k}", padding=k // 2) for k in (1, 3)]
                hidden = torch.cat(wide, dim=1)
        outputs.append(hidden)
    return outputs


def test_squeezenet_blocks_have_published_sizes():
    """Table 1 of the paper for 1.1: poolings that round up, at 64, 128 and 256 channels."""
    assert [tuple(one.shape[1:]) for one in SqueezeNet()(torch.zeros(1, 1, 224, 224))] == [
        (64, 111, 111), (128, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (512, 13, 13), (512, 13, 13)
    ]  # fmt: skip
    assert [one.shape[-1] for one in SqueezeNet()(torch.zeros(1, 1, 64, 64))] == [31, 15, 7, 3, 3, 3, 3]
    assert [one.shape[-1] for one in SqueezeNet()(torch.zeros(1, 1, 66, 66))] == [32, 16, 8, 4, 4, 4, 4], "rounded up"


def test_squeezenet_has_parameter_count_of_torchvision_convolutions():
    assert sum(parameter.numel() for parameter in SqueezeNet().parameters()) == 1_235_496 - (512 * 1000 + 1000)


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason=f"no SqueezeNet weights at {REAL}")
def test_squeezenet_with_real_weights_equals_plain_functions():
    image = torch.rand(2, 1, 66, 80) * 2 - 1
    expected = independent(torch.load(REAL, weights_only=True), image)
    for one, other in zip(load_extractor("squeezenet", str(REAL), 7)(image), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
