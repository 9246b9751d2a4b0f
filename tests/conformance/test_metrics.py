"""Properties that every metric of two images has."""

from dataclasses import dataclass

import pytest
import torch

from medgan.metrics.pixel_errors import bias, mae, mse, psnr
from medgan.metrics.ssim import ms_ssim, ssim, uqi
from medgan.metrics.validation_metrics import direction
from medgan.metrics.vif import vif

pytestmark = pytest.mark.unit

SIZE = 176


@dataclass(frozen=True)
class Case:
    """A metric and its properties; `best` is the value of equal images."""

    function: object
    best: float
    symmetric: bool = True
    ranged: bool = False
    invariant: bool = True

    @property
    def name(self):
        return self.function.__name__

    def __call__(self, output, target, scale=255.0, **more):
        return self.function(output, target, **({"data_range": scale} if self.ranged else {}), **more)


CASES = [
    Case(ssim, 1.0, ranged=True),
    Case(ms_ssim, 1.0, ranged=True),
    Case(uqi, 1.0),
    Case(vif, 1.0, symmetric=False, ranged=True),
    Case(psnr, 100.0, ranged=True),
    Case(mse, 0.0, invariant=False),
    Case(mae, 0.0, invariant=False),
    Case(bias, 0.0, symmetric=False, invariant=False),
]
every = pytest.mark.parametrize("metric", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def target():
    """Three smooth images on 0..255 with black around."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 1, 22, 22, generator=draw) * 255
    image = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
    image[..., :30] = 0
    return image


@pytest.fixture(scope="module")
def noise(target):
    return torch.randn(target.shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mask(target):
    return target > 20


@every
def test_metric_of_equal_images_is_best_value(metric, target, mask):
    for region in (None, mask):
        torch.testing.assert_close(
            metric(target, target, mask=region).double(), torch.full((3,), metric.best).double(), atol=1e-6, rtol=0
        )


@every
@pytest.mark.parametrize("masked", [False, True])
def test_metric_gets_worse_with_growing_noise(metric, target, noise, mask, masked):
    region = mask if masked else None
    # Noise of zero mean has no bias, so the bias is tested with the noise's absolute value.
    noise = noise.abs() if metric.name == "bias" else noise
    values = torch.stack([metric(target + sigma * noise, target, mask=region) for sigma in (0, 2, 10, 50)])
    falling = values.diff(dim=0) < 0
    assert falling.all() if direction(metric.name) == "max" else not falling.any()


@every
def test_metric_is_symmetric_exactly_where_declared(metric, target, noise):
    output = (target * 0.8 + 10 * noise).clamp(0, 255)
    forward, backward = metric(output, target), metric(target, output)
    if metric.symmetric:
        torch.testing.assert_close(forward, backward)
    else:
        assert (forward - backward).abs().min() > 1e-3


@every
@pytest.mark.parametrize("masked", [False, True])
def test_metric_of_image_is_equal_alone_and_in_batch(metric, target, noise, mask, masked):
    output = (target + torch.tensor([1.0, 10.0, 50.0]).view(3, 1, 1, 1) * noise).clamp(0, 255)
    together = metric(output, target, mask=mask if masked else None)
    assert together.shape == (3,)
    for row in range(3):
        one = slice(row, row + 1)
        alone = metric(output[one], target[one], mask=mask[one] if masked else None)
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-6)
    assert together.unique().numel() == 3


@every
def test_metric_with_empty_mask_is_nan_for_that_image_only(metric, target, noise, mask):
    some = mask & torch.tensor([True, False, True]).view(3, 1, 1, 1)
    assert metric(target + noise, target, mask=some).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("metric", [case for case in CASES if case.name != "ms_ssim"], ids=lambda case: case.name)
def test_metric_ignores_pixels_far_outside_mask(metric, target, noise):
    """Windows of a map reach 5 pixels beyond it; those of MS-SSIM's coarsest scale 80, over the whole of this image."""
    mask = torch.zeros_like(target, dtype=torch.bool)
    mask[..., 40:120, 50:130] = True
    output = target + 10 * noise
    changed = output.clone()
    changed[..., 130:, :] = 255 - changed[..., 130:, :]
    torch.testing.assert_close(metric(changed, target, mask=mask), metric(output, target, mask=mask))


@every
def test_metric_requires_data_range_and_scales_with_range(metric, target, noise):
    output = (target + 10 * noise).clamp(0, 255)
    if metric.ranged:
        with pytest.raises(TypeError, match="data_range"):
            metric.function(output, target)
    if metric.invariant:
        scaled = metric(output / 255, target / 255, scale=1.0)
        torch.testing.assert_close(scaled, metric(output, target), rtol=1e-4, atol=1e-5)


@every
def test_metric_leaves_images_unchanged(metric, target, noise, mask):
    output, before, after = target + noise, target + noise, target.clone()
    metric(output, target, mask=mask)
    assert torch.equal(output, before)
    assert torch.equal(target, after)
