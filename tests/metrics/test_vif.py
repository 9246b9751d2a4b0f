import math

import numpy as np
import pytest
import torch
from refusal import refusal
from scipy.signal import convolve2d

from medgan.errors import InputError
from medgan.metrics.vif import VIF_SIZE, vif


def vifp_mscale(target, output):
    """The authors' MATLAB program, rewritten in numpy; images (H, W) on 0..255."""
    in_output = in_target = 0.0
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        places = np.arange(side) - side // 2
        window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * (side / 5) ** 2))
        window /= window.sum()
        if scale > 1:
            target, output = (convolve2d(image, window, "valid")[::2, ::2] for image in (target, output))
        mean_target, mean_output = (convolve2d(image, window, "valid") for image in (target, output))
        var_target = np.maximum(convolve2d(target**2, window, "valid") - mean_target**2, 0)
        var_output = np.maximum(convolve2d(output**2, window, "valid") - mean_output**2, 0)
        covariance = convolve2d(target * output, window, "valid") - mean_target * mean_output
        gain = covariance / (var_target + 1e-10)
        noise = var_output - gain * covariance
        noise[var_target < 1e-10] = var_output[var_target < 1e-10]
        gain[(var_target < 1e-10) | (var_output < 1e-10)] = 0
        noise[gain < 0] = var_output[gain < 0]
        gain[gain < 0] = 0
        noise = np.maximum(noise, 1e-10)
        in_output += np.log10(1 + gain**2 * var_target / (noise + 2)).sum()
        in_target += np.log10(1 + var_target / 2).sum()
    return in_output / in_target


@pytest.fixture
def images():
    """Four pairs of 48 x 60 on 0..255: noisy, blurred by a mean, less contrast, unrelated."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 1, 12, 15, generator=draw, dtype=torch.float64) * 255
    target = torch.nn.functional.interpolate(coarse, size=(48, 60), mode="bilinear")
    output = target.clone()
    output[0] += 10 * torch.randn(output[0].shape, generator=draw, dtype=torch.float64)
    output[1] = torch.nn.functional.avg_pool2d(target[1], 5, stride=1, padding=2)
    output[2] *= 0.7
    output[3] = target[3].flip(-1)
    return output, target


def test_vif_equals_program_of_authors(images):
    output, target = images
    expected = [vifp_mscale(*pair) for pair in zip(target[:, 0].numpy(), output[:, 0].numpy(), strict=True)]
    np.testing.assert_allclose(vif(output, target, data_range=255.0), expected, rtol=1e-6)
    np.testing.assert_allclose(vif(output.float(), target.float(), data_range=255.0), expected, rtol=1e-4)


def test_vif_is_independent_of_scale_with_matching_data_range(images):
    output, target = images
    on_grey = vif(output, target, data_range=255.0)
    torch.testing.assert_close(vif(output / 127.5 - 1, target / 127.5 - 1, data_range=2.0), on_grey)
    assert ((vif(output / 255, target / 255, data_range=255.0) - on_grey).abs() > 0.02).all()


def test_vif_of_higher_contrast_exceeds_one(images):
    _, target = images
    assert (vif(1.5 * target, target, data_range=255.0) > 1).all()


@pytest.mark.parametrize("value", [0.0, 77.7, 200.3, 255.0])
def test_vif_with_flat_background_keeps_precision(images, value):
    """In float32 the variance at 200.3 is wrong by 0.01; torchmetrics counts this as information, 53 % here."""
    output, target = (torch.nn.functional.pad(image.float(), (100,) * 4, value=value) for image in images)
    expected = [
        vifp_mscale(*pair) for pair in zip(target[:, 0].double().numpy(), output[:, 0].double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(vif(output, target, data_range=255.0), expected, rtol=3e-4)


@pytest.mark.parametrize("value", [0.0, 77.7, 255.0])
def test_vif_of_constant_target_is_nan(value):
    target = torch.full((1, 1, 48, 48), value)
    assert math.isnan(vif(target, target, data_range=255.0).item())
    assert math.isnan(vif(torch.rand(1, 1, 48, 48), target, data_range=255.0).item())


def test_vif_of_constant_output_is_zero(images):
    _, target = images
    for precision in (torch.float32, torch.float64):
        output, precise = torch.full_like(target, 100.0, dtype=precision), target.to(precision)
        assert vif(output, precise, data_range=255.0).tolist() == pytest.approx([0.0] * 4, abs=1e-6)


def test_vif_in_mask_treats_outside_as_black(images):
    output, target = images
    mask = torch.zeros(4, 1, 48, 60, dtype=torch.bool)
    mask[1:, :, 10:40, 12:50] = True
    inside = vif(output, target, data_range=255.0, mask=mask)
    assert math.isnan(inside[0].item()), "its mask is empty"
    torch.testing.assert_close(inside[1:], vif((output * mask)[1:], (target * mask)[1:], data_range=255.0))
    changed = torch.where(mask, output, 255 - output)
    torch.testing.assert_close(vif(changed, target, data_range=255.0, mask=mask)[1:], inside[1:])


def test_vif_refuses_images_below_least_size():
    image = torch.rand(1, 1, VIF_SIZE, VIF_SIZE)
    assert vif(image, image, data_range=1.0).item() == pytest.approx(1)
    with pytest.raises(InputError, check=refusal("E-METRIC-01", metric="vif", least=41, height=41, width=40)):
        vif(image[..., 1:], image[..., 1:], data_range=1.0)
