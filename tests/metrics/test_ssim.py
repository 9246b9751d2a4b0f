import numpy as np
import pytest
import torch
from refusal import refusal
from skimage.metrics import structural_similarity
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import universal_image_quality_index

from medgan.errors import InputError
from medgan.metrics.ssim import MS_SSIM_SIZE, ms_ssim, ssim, uqi, uqi_map

pytestmark = pytest.mark.unit


def scikit_ssim(output, target, **more):
    return structural_similarity(
        target, output, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, **{"data_range": 255, **more}
    )


@pytest.fixture
def images():
    """Three pairs on 0..255: noise, a smooth ramp with an error, a shifted copy."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 40 * 48).reshape(40, 48)
    target = np.stack([random.uniform(0, 255, (40, 48)), ramp, random.uniform(0, 255, (40, 48))])
    output = np.stack([target[0] + random.normal(0, 20, (40, 48)), np.sqrt(ramp * 255), np.roll(target[2], 1, axis=0)])
    return torch.from_numpy(output)[:, None].abs(), torch.from_numpy(target)[:, None]


@pytest.fixture
def large():
    """Two smooth pairs of 176 x 180 on 0..255, whose coarsest scale has structure left."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 1, 24, 24, generator=draw, dtype=torch.float64) * 255
    target = torch.nn.functional.interpolate(coarse, size=(MS_SSIM_SIZE, 180), mode="bilinear")
    return (target + 15 * torch.randn(target.shape, generator=draw, dtype=torch.float64)).clamp(0, 255), target


def test_ssim_equals_scikit_image_with_gaussian_window(images):
    """Both leave out the border of five pixels where the window of eleven does not fit."""
    output, target = images
    expected = [scikit_ssim(*pair) for pair in zip(output[:, 0].numpy(), target[:, 0].numpy(), strict=True)]
    np.testing.assert_allclose(ssim(output, target, data_range=255.0), expected, rtol=1e-8)
    np.testing.assert_allclose(ssim(output.float(), target.float(), data_range=255.0), expected, rtol=1e-4)


def test_ssim_in_mask_is_mean_of_scikit_image_map(images):
    output, target = images
    mask = torch.rand(3, 1, 40, 48, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = []
    for index in range(3):
        _, full = scikit_ssim(output[index, 0].numpy(), target[index, 0].numpy(), full=True)
        expected.append(full[5:-5, 5:-5][mask[index, 0, 5:-5, 5:-5].numpy()].mean())
    np.testing.assert_allclose(ssim(output, target, data_range=255.0, mask=mask), expected, rtol=1e-9)


def test_ssim_with_too_large_data_range_is_too_high():
    """PAPER, section 6: public code used the range 2 of [-1, 1] for floats in [0, 1], and 84.9 became 91.3."""
    draw = torch.Generator().manual_seed(0)
    target = torch.rand(1, 1, 32, 32, generator=draw, dtype=torch.float64) * 0.1 + 0.5
    output = target + 0.02 * torch.randn(target.shape, generator=draw, dtype=torch.float64)
    right = ssim(output, target, data_range=1.0)
    torch.testing.assert_close(ssim(output * 255, target * 255, data_range=255.0), right)
    assert scikit_ssim(output[0, 0].numpy(), target[0, 0].numpy(), data_range=1.0) == pytest.approx(right.item())
    assert ssim(output, target, data_range=2.0) > right + 0.02
    with pytest.raises(TypeError, match="data_range"):
        ssim(output, target)


def test_uqi_equals_torchmetrics_without_constant_windows(images):
    output, target = images
    expected = universal_image_quality_index(output, target, reduction="none")
    torch.testing.assert_close(uqi_map(output, target), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(uqi(output, target), expected.mean(dim=(1, 2, 3)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [(0.0, 0.0, 1.0), (200.3, 200.3, 1.0), (100.0, 50.0, 0.8), (0.0, 50.0, 0.0), (255.0, 254.0, 0.999992)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uqi_compares_constant_windows_by_luminance(output, target, expected, dtype):
    pair = (torch.full((1, 1, 20, 20), value, dtype=dtype) for value in (output, target))
    assert uqi(*pair).item() == pytest.approx(expected, abs=1e-6)


def test_uqi_of_constant_window_against_structure_is_zero():
    structure = torch.rand(1, 1, 20, 20) * 255
    assert uqi(torch.full_like(structure, 100.0), structure).item() == pytest.approx(0, abs=1e-9)


def test_uqi_counts_one_grey_level_in_corner_as_structure():
    target = torch.full((1, 1, 11, 11), 255.0)
    output = target.clone()
    output[..., 0, 0] = 254.0
    assert uqi(output, target).item() == pytest.approx(0, abs=1e-6)


def test_uqi_of_equal_images_with_black_background_is_one():
    """torchmetrics gives 0.31 here, because it counts 0/0 as 0."""
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:40, 20:40] = torch.rand(20, 20) * 255
    assert uqi(image, image).item() == pytest.approx(1)


def test_uqi_in_mask_is_mean_of_map(images):
    output, target = images
    mask = torch.rand(3, 1, 40, 48, generator=torch.Generator().manual_seed(0)) < 0.3
    full = uqi_map(output, target)
    expected = torch.stack([full[index][mask[index, :, 5:-5, 5:-5]].mean() for index in range(3)])
    torch.testing.assert_close(uqi(output, target, mask=mask), expected)


def test_ms_ssim_equals_product_of_scikit_image_ssim_at_five_scales(large):
    """With a huge K1 scikit-image's luminance is 1: what is left is contrast and structure."""
    output, target = large
    expected = []
    for index in range(2):
        product, pair = 1.0, (output[index : index + 1], target[index : index + 1])
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            k1 = 0.01 if scale == 4 else 1e6
            product *= scikit_ssim(*(image[0, 0].numpy() for image in pair), K1=k1) ** weight
            pair = [avg_pool2d(image, 2) for image in pair]
        expected.append(product)
    np.testing.assert_allclose(ms_ssim(output, target, data_range=255.0), expected, rtol=1e-4)
    np.testing.assert_allclose(ms_ssim(output.float(), target.float(), data_range=255.0), expected, rtol=1e-4)


def test_ms_ssim_in_mask_uses_windows_centered_inside_mask(large):
    output, target = large
    everywhere = torch.ones_like(target, dtype=torch.bool)
    whole = ms_ssim(output, target, data_range=255.0, mask=everywhere)
    torch.testing.assert_close(whole, ms_ssim(output, target, data_range=255.0).to(whole), rtol=6e-3, atol=0)
    assert ms_ssim(output, target, data_range=255.0, mask=~everywhere).isnan().all()


def test_ms_ssim_is_independent_of_body_size():
    torch.manual_seed(0)
    target = torch.rand(1, 1, 256, 256) * 255
    output = (target + 60 * torch.randn_like(target)).clamp(0, 255)
    large, small = torch.zeros(2, 1, 1, 256, 256, dtype=torch.bool)
    large[..., 8:-8, 8:-8] = True
    small[..., 80:-80, 80:-80] = True
    values = [float(ms_ssim(output, target, data_range=255.0, mask=mask)) for mask in (large, small)]
    assert abs(values[0] - values[1]) < 0.03


@pytest.mark.parametrize(
    ("name", "metric", "size"),
    [
        ("ms_ssim", ms_ssim, MS_SSIM_SIZE),
        ("ssim", ssim, 11),
        ("uqi", lambda output, target, data_range: uqi(output, target), 11),
    ],
)
def test_ssim_ms_ssim_and_uqi_refuse_images_below_least_size(name, metric, size):
    image = torch.rand(1, 1, size, size)
    assert metric(image, image, data_range=1.0).item() == pytest.approx(1)
    with pytest.raises(InputError, check=refusal("E-METRIC-01", metric=name, least=size, height=size - 1, width=size)):
        metric(image[..., 1:, :], image[..., 1:, :], data_range=1.0)
