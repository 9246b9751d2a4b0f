import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.models.imagenet_input import ImageNetInput, features_at

pytestmark = pytest.mark.unit


def test_imagenet_input_maps_image_to_imagenet_scale():
    scaled = ImageNetInput("any", 1)(torch.full((2, 1, 1, 1), 0.5))  # 0.75 in [0, 1]
    expected = torch.tensor([(0.75 - 0.485) / 0.229, (0.75 - 0.456) / 0.224, (0.75 - 0.406) / 0.225])
    torch.testing.assert_close(scaled, expected.view(1, 3, 1, 1).expand(2, 3, 1, 1))


def test_imagenet_input_repeats_each_image_on_three_channels():
    network, images = ImageNetInput("any", 1), torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1)
    grey = (network(images) * network.std + network.mean) * 2 - 1
    torch.testing.assert_close(grey, images.expand(3, 3, 1, 1))


def test_imagenet_input_has_empty_state_dict():
    assert ImageNetInput("any", 1).state_dict() == {}


def test_imagenet_input_refuses_image_below_least_size():
    with pytest.raises(
        ValueError, check=refusal("E-EXTRACTOR-06", network="alexnet", least="31", rows="64", columns="30")
    ):
        ImageNetInput("alexnet", 31)(torch.zeros(1, 1, 64, 30))


def test_features_at_returns_outputs_of_requested_layers():
    double, half = nn.Upsample(scale_factor=2), nn.AvgPool2d(2)
    features = features_at([1, 3], nn.Sequential(double, double, half, half), torch.zeros(1, 1, 4, 4))
    assert [one.shape[-1] for one in features] == [8, 8]
    assert [one.shape[-1] for one in features_at([2], nn.Sequential(double, double), torch.zeros(1, 1, 4, 4))] == [16]
