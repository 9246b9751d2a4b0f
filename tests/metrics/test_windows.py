import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from medgan.errors import InputError
from medgan.metrics.windows import blur, moments, require_size


def gaussian(window, sigma):
    """The weights of a window, (window, window), by the formula."""
    places = np.arange(window) - (window - 1) / 2
    weights = np.exp(-(places[:, None] ** 2 + places[None, :] ** 2) / (2 * sigma**2))
    return weights / weights.sum()


@pytest.mark.parametrize("size", [(11, 11), (16, 23), (42, 43), (75, 107)])
@pytest.mark.parametrize(("window", "sigma"), [(11, 1.5), (5, 1.0)])
def test_blurring_is_the_weighted_mean_of_each_whole_window(size, window, sigma):
    image = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, size))
    border = window // 2
    expected = correlate(image.numpy(), gaussian(window, sigma))[border : size[0] - border, border : size[1] - border]
    np.testing.assert_allclose(blur(image[None, None], window=window, sigma=sigma)[0, 0], expected, rtol=1e-12)


def test_moments_are_those_of_a_weighted_sample():
    random = np.random.default_rng(1)
    output, target = random.uniform(0, 255, (2, 5, 5))
    weights = gaussian(5, 1.0)
    mean_output, mean_target = (weights * output).sum(), (weights * target).sum()
    expected = [
        mean_output,
        mean_target,
        (weights * (output - mean_output) ** 2).sum(),
        (weights * (target - mean_target) ** 2).sum(),
        (weights * (output - mean_output) * (target - mean_target)).sum(),
    ]
    local = moments(torch.from_numpy(output)[None, None], torch.from_numpy(target)[None, None], window=5, sigma=1.0)
    np.testing.assert_allclose([value.item() for value in local], expected, rtol=1e-10)


@pytest.mark.parametrize("value", [0.0, 77.7, 200.3, 255.0])
def test_a_constant_float32_image_has_no_variance(value):
    local = moments(*torch.full((2, 1, 1, 64, 64), value), window=17, sigma=3.4)
    assert local.var_output.max() < 1e-9
    assert local.covariance.abs().max() < 1e-9


def test_an_image_that_is_too_small_is_refused_with_its_size():
    require_size(torch.zeros(1, 1, 11, 12), 11, "ssim")
    with pytest.raises(InputError, match="ssim: needs sides of at least 11 pixels; got 12 x 10"):
        require_size(torch.zeros(1, 1, 12, 10), 11, "ssim")
