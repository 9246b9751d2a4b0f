import pytest
import torch
from torch import nn

from medgan.models.blocks import initialize, normalization


def test_instance_norm_is_affine_and_keeps_no_running_statistics():
    norm = normalization("instance", 3)
    assert norm.weight.shape == norm.bias.shape == (3,)
    assert norm.running_mean is None


def test_instance_norm_normalizes_each_image_by_itself():
    images = torch.randn(2, 3, 8, 8) * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1)
    normalized = normalization("instance", 3)(images)
    torch.testing.assert_close(normalized.std(dim=(2, 3), correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)


def test_batch_norm_is_torchs_and_none_changes_nothing():
    assert isinstance(normalization("batch", 3), nn.BatchNorm2d)
    image = torch.randn(1, 3, 4, 4)
    assert normalization("none", 3)(image) is image


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm: expected instance, batch or none; got 'layer'"):
        normalization("layer", 3)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolutions_start_at_pix2pix_values(kind):
    layer = kind(64, 64, 4)
    initialize(layer)
    assert abs(float(layer.weight.detach().mean())) < 5e-4
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not layer.bias.any()
