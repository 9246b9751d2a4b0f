"""Computes pixel errors, one function a metric, of two tensors (B, 1, H, W); the result is (B,)."""

import torch
from torch import Tensor

from medgan.errors import InputError


def average(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the mean of each image, over the pixels of its mask if there is one.

    Args:
        image: (B, 1, H, W), or a smaller map of windows, with equal borders missing on opposite sides.
        mask: bool, (B, 1, H, W); borders that the map lacks are ignored.

    Returns:
        (B,), NaN for an image whose mask is empty.
    """
    if mask is None:
        return image.mean(dim=(1, 2, 3))
    top, left = ((whole - part) // 2 for whole, part in zip(mask.shape[-2:], image.shape[-2:], strict=True))
    mask = mask[..., top : top + image.shape[-2], left : left + image.shape[-1]]
    return (image * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def require_size(image: Tensor, least: int, metric: str) -> None:
    """Refuses images too small for a metric.

    Raises:
        InputError: a side is shorter than `least` pixels.
    """
    height, width = image.shape[-2:]
    if min(height, width) < least:
        raise InputError("E-METRIC-01", metric=metric, least=least, height=height, width=width)


def mse(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Returns the mean squared error in the images' unit squared, over `mask` if given. Lower is better."""
    return average((output - target).square(), mask)


def psnr(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Returns the peak signal-to-noise ratio in dB, over `mask` if given, at most 100. Higher is better."""
    relative = average(((output - target) / data_range).square(), mask)
    return -10 * torch.log10(relative.clamp(min=1e-10))


def mae(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Returns the mean absolute error in the images' unit, over `mask` if given. Lower is better."""
    return average((output - target).abs(), mask)


def bias(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Returns the mean of output - target in the images' unit, over `mask` if given. Nearer to 0 is better."""
    return average(output - target, mask)
