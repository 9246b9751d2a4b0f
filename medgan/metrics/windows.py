"""Means, variances and the covariance of two images in a Gaussian window at each place where it wholly fits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medgan.errors import InputError

STRIP = 32
"""Rows of one product: short enough that little of the band matrix is zero."""


class Moments(NamedTuple):
    """Population moments of each window, (B, 1, H', W') float64."""

    mean_output: Tensor
    mean_target: Tensor
    var_output: Tensor
    var_target: Tensor
    covariance: Tensor


def moments(output: Tensor, target: Tensor, *, window: int, sigma: float) -> Moments:
    """The moments in windows of `window` pixels, W' = W - window + 1.

    Float64, as a variance here is a small difference of large numbers: in float32 a constant region at 255 has a
    variance of 0.01, which metrics without stabilizing constants take for structure.

    Args:
        output: (B, 1, H, W).
        target: (B, 1, H, W).
        window: side in pixels, odd.
        sigma: standard deviation of the weights in pixels.
    """
    output, target = output.double(), target.double()
    products = (output, target, output * output, target * target, output * target)
    mean_output, mean_target, *seconds = (blur(image, window=window, sigma=sigma) for image in products)
    return Moments(
        mean_output,
        mean_target,
        var_output=(seconds[0] - mean_output.square()).clamp(min=0),
        var_target=(seconds[1] - mean_target.square()).clamp(min=0),
        covariance=seconds[2] - mean_output * mean_target,
    )


def blur(image: Tensor, *, window: int, sigma: float) -> Tensor:
    """Gaussian-weighted mean of each whole window: (B, 1, H, W) -> (B, 1, H - window + 1, W - window + 1).

    Rows first, then columns, as products with a band matrix, strip by strip: on a CPU in float64 about a hundredth
    of a convolution's time.
    """
    band = _band(window, sigma).to(image)
    return _blur_rows(_blur_rows(image, band).mT, band).mT


def require_size(image: Tensor, least: int, metric: str) -> None:
    """Refuses images too small for a metric.

    Raises:
        InputError: a side is shorter than `least` pixels.
    """
    height, width = image.shape[-2:]
    if min(height, width) < least:
        raise InputError(f"{metric}: needs sides of at least {least} pixels; got {height} x {width}")


def _blur_rows(image: Tensor, band: Tensor) -> Tensor:
    extra = band.shape[1] - STRIP
    num_rows = image.shape[-2] - extra
    strips = [
        band[: num_rows - start, : num_rows - start + extra] @ image[..., start : start + STRIP + extra, :]
        for start in range(0, num_rows, STRIP)
    ]
    return torch.cat(strips, dim=-2)


def _band(window: int, sigma: float) -> Tensor:
    """(STRIP, STRIP + window - 1): row i holds the window's weights, which add up to 1, from column i on."""
    reach = (window - 1) / 2
    columns = torch.arange(STRIP + window - 1, dtype=torch.float64)
    offsets = columns - columns[:STRIP, None] - reach
    weights = torch.exp(-offsets.square() / (2 * sigma**2)) * (offsets.abs() <= reach)
    return weights / weights.sum(dim=1, keepdim=True)
