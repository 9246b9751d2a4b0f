import math

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from medgan.metrics.image import mae, mse, psnr, ssim


@pytest.fixture
def images():
    """Three pairs on 0..255: noise, a smooth ramp with an error, a shifted copy."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 40 * 48).reshape(40, 48)
    target = np.stack([random.uniform(0, 255, (40, 48)), ramp, random.uniform(0, 255, (40, 48))])
    output = np.stack([target[0] + random.normal(0, 20, (40, 48)), np.sqrt(ramp * 255), np.roll(target[2], 1, axis=0)])
    return torch.from_numpy(output)[:, None], torch.from_numpy(target)[:, None]


def test_ssim_is_scikit_images_with_the_gaussian_window(images):
    """Both leave out the border of five pixels where the window of eleven does not fit."""
    output, target = images
    expected = [
        structural_similarity(
            theirs.numpy(), mine.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for mine, theirs in zip(output[:, 0], target[:, 0], strict=True)
    ]
    values = ssim(output, target, data_range=255.0)
    assert values.shape == (3,)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(ssim(output.float(), target.float(), data_range=255.0), expected, rtol=1e-3)


def test_ssim_of_equal_images_is_one_and_symmetric(images):
    output, target = images
    torch.testing.assert_close(ssim(output, output, data_range=255.0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(ssim(output, target, data_range=255.0), ssim(target, output, data_range=255.0))


def test_ssim_depends_on_the_data_range(images):
    output, target = images
    assert (ssim(output, target, data_range=255.0) != ssim(output, target, data_range=1.0)).all()
    torch.testing.assert_close(
        ssim(output / 255, target / 255, data_range=1.0), ssim(output, target, data_range=255.0), rtol=1e-6, atol=0
    )


def test_psnr_and_mse_are_scikit_images(images):
    output, target = images
    pairs = list(zip(target.numpy(), output.numpy(), strict=True))
    np.testing.assert_allclose(mse(output, target), [mean_squared_error(*pair) for pair in pairs], rtol=1e-9)
    expected = [peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs]
    np.testing.assert_allclose(psnr(output, target, data_range=255.0), expected, rtol=1e-9)


def test_values_worked_by_hand():
    output, target = (
        torch.zeros(2, 1, 2, 2),
        torch.tensor([[0.0, 0.0, 0.0, 4.0], [1.0, -1.0, 1.0, -1.0]]).view(2, 1, 2, 2),
    )
    assert mse(output, target).tolist() == [4.0, 1.0]
    assert mae(output, target).tolist() == [1.0, 1.0]
    assert psnr(output, target, data_range=20.0).tolist() == pytest.approx([20.0, 20 * math.log10(20)])


def test_equal_images_have_a_psnr_of_100_not_infinity():
    image = torch.rand(1, 1, 4, 4)
    assert psnr(image, image, data_range=255.0).tolist() == [100.0]


def test_a_masked_error_is_the_mean_inside_the_mask():
    output, target = torch.zeros(2, 1, 2, 2), torch.tensor([[1.0, 2.0, 30.0, 40.0]] * 2).view(2, 1, 2, 2)
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool).view(2, 1, 2, 2)
    assert mae(output, target, mask=mask).tolist() == [1.5, 21.0]
    torch.testing.assert_close(mae(output, target, mask=torch.ones_like(mask)), mae(output, target))


def test_an_empty_mask_gives_nan_for_that_image_alone():
    output, target = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    mask = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]).bool()
    first, second = mae(output, target, mask=mask).tolist()
    assert math.isnan(first)
    assert second == 1.0


@pytest.mark.parametrize(
    "metric", [lambda *pair: ssim(*pair, data_range=255.0), lambda *pair: psnr(*pair, data_range=255.0), mse, mae]
)
def test_every_metric_gives_each_image_its_own_value(metric, images):
    output, target = images
    torch.testing.assert_close(metric(output, target)[1:2], metric(output[1:2], target[1:2]))
