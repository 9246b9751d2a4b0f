import math

import numpy as np
import pytest
import torch
from refusal import refusal
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from medgan.errors import InputError
from medgan.metrics.pixel_errors import average, bias, mae, mse, psnr, require_size

pytestmark = pytest.mark.unit


@pytest.fixture
def images():
    """Three pairs on 0..255: noise, a smooth ramp with an error, a shifted copy."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 40 * 48).reshape(40, 48)
    target = np.stack([random.uniform(0, 255, (40, 48)), ramp, random.uniform(0, 255, (40, 48))])
    output = np.stack([target[0] + random.normal(0, 20, (40, 48)), np.sqrt(ramp * 255), np.roll(target[2], 1, axis=0)])
    return torch.from_numpy(output)[:, None], torch.from_numpy(target)[:, None]


def test_psnr_and_mse_equal_scikit_image(images):
    output, target = images
    pairs = list(zip(target.numpy(), output.numpy(), strict=True))
    np.testing.assert_allclose(mse(output, target), [mean_squared_error(*pair) for pair in pairs], rtol=1e-9)
    expected = [peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs]
    np.testing.assert_allclose(psnr(output, target, data_range=255.0), expected, rtol=1e-9)


def test_pixel_errors_equal_values_worked_by_hand():
    output, target = (
        torch.zeros(2, 1, 2, 2),
        torch.tensor([[0.0, 0.0, 0.0, 4.0], [1.0, -1.0, 1.0, -1.0]]).view(2, 1, 2, 2),
    )
    assert mse(output, target).tolist() == [4.0, 1.0]
    assert mae(output, target).tolist() == [1.0, 1.0]
    assert bias(output, target).tolist() == [-1.0, 0.0], "output - target"
    assert psnr(output, target, data_range=20.0).tolist() == pytest.approx([20.0, 20 * math.log10(20)])


def test_psnr_of_equal_images_is_100():
    image = torch.rand(1, 1, 4, 4)
    assert psnr(image, image, data_range=255.0).tolist() == [100.0]


def test_pixel_errors_in_mask_are_means_inside_mask():
    output, target = torch.zeros(2, 1, 2, 2), torch.tensor([[1.0, 2.0, 30.0, 40.0]] * 2).view(2, 1, 2, 2)
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool).view(2, 1, 2, 2)
    assert mae(output, target, mask=mask).tolist() == [1.5, 21.0]
    assert bias(output, target, mask=mask).tolist() == [-1.5, -21.0]
    assert mse(output, target, mask=mask).tolist() == [2.5, 802.0]
    expected = [10 * math.log10(100**2 / 2.5), 10 * math.log10(100**2 / 802)]
    assert psnr(output, target, data_range=100.0, mask=mask).tolist() == pytest.approx(expected)


def test_average_of_window_map_uses_inner_part_of_mask():
    """A window of three pixels gives a map of 2 x 3 for an image of 4 x 5, which begins at row 1, column 1."""
    windows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None]
    mask = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    mask[0, 0, 0] = True
    mask[0, 0, 1, 1] = mask[0, 0, 2, 3] = True
    assert average(windows, mask).tolist() == [3.5]
    assert math.isnan(average(windows, mask & (torch.arange(4) == 0)[:, None]).item()), "only border pixels are left"


def test_require_size_refuses_image_that_is_too_small():
    require_size(torch.zeros(1, 1, 11, 12), 11, "ssim")
    with pytest.raises(InputError, check=refusal("E-METRIC-01", metric="ssim", least="11", height="12", width="10")):
        require_size(torch.zeros(1, 1, 12, 10), 11, "ssim")
