"""SSIM and its relatives UQI and MS-SSIM, over the windows of 11 pixels that lie wholly inside the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from medgan.metrics.image import average
from medgan.metrics.windows import Moments, moments, require_size

WINDOW, SIGMA = 11, 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SIZE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""The least side, in pixels, whose coarsest scale still holds one window."""
ROUNDING = 1e-13
"""A variance below this part of the squared mean is float64's rounding: the window is constant."""


def ssim(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Structural similarity (Wang et al., 2004, eq. 13), (B,): the mean of `ssim_map`. 1 at best.

    Args:
        output: (B, 1, H, W).
        target: (B, 1, H, W).
        data_range: highest minus lowest possible value; the stabilizing constants scale with it.
        mask: bool, (B, 1, H, W): only windows centered on its pixels count. None centered there gives NaN.
    """
    return average(ssim_map(output, target, data_range=data_range), mask)


def uqi(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Universal image quality index (Wang and Bovik, 2002), (B,): the mean of `uqi_map`. 1 at best.

    Args:
        output: (B, 1, H, W), not negative; 0 is black.
        target: (B, 1, H, W), likewise.
        mask: bool, (B, 1, H, W): only windows centered on its pixels count. None centered there gives NaN.
    """
    return average(uqi_map(output, target), mask)


def ssim_map(output: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """The SSIM of each whole window, (B, 1, H - 10, W - 10).

    Raises:
        InputError: a side is shorter than the window.
    """
    require_size(target, WINDOW, "ssim")
    luminance, contrast = _luminance_and_contrast(moments(output, target, window=WINDOW, sigma=SIGMA), data_range)
    return luminance * contrast


def uqi_map(output: Tensor, target: Tensor) -> Tensor:
    """The UQI of each whole window, (B, 1, H - 10, W - 10): SSIM with its constants at 0, so with 0/0 to decide.

    As in the authors' own program: where both windows are constant, only their luminance is compared, and two
    black windows count 1. A constant window against one with structure counts 0.

    Raises:
        InputError: a side is shorter than the window.
    """
    require_size(target, WINDOW, "uqi")
    local = moments(output, target, window=WINDOW, sigma=SIGMA)
    power = local.mean_output.square() + local.mean_target.square()
    luminance = torch.where(power > 0, 2 * local.mean_output * local.mean_target / power, 1.0)
    variance = local.var_output + local.var_target
    structure = torch.where(variance > ROUNDING * power, 2 * local.covariance / variance, 1.0)
    return luminance * structure


def ms_ssim(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003, eq. 7), (B,). 1 at best.

    Five scales, each half the one before; a scale whose mean is negative counts 0.

    Args:
        output: (B, 1, H, W).
        target: (B, 1, H, W).
        data_range: highest minus lowest possible value.
        mask: bool, (B, 1, H, W): both images are set to 0 outside it, as SynthRAD does. An empty one gives NaN.

    Raises:
        InputError: a side is shorter than 176 pixels.
    """
    require_size(target, MS_SSIM_SIZE, "ms_ssim")
    if mask is not None:
        output, target = output * mask, target * mask
    product = torch.ones(len(target), dtype=torch.float64, device=target.device)
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        luminance, contrast = _luminance_and_contrast(moments(output, target, window=WINDOW, sigma=SIGMA), data_range)
        similarity = luminance * contrast if scale == len(SCALE_WEIGHTS) else contrast
        product = product * average(similarity).clamp(min=0) ** weight
        output, target = avg_pool2d(output, 2), avg_pool2d(target, 2)
    return product if mask is None else product.where(mask.any(dim=(1, 2, 3)), torch.nan)


def _luminance_and_contrast(local: Moments, data_range: float) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM in each window; the second one holds contrast and structure."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * local.mean_output * local.mean_target + c1) / (
        local.mean_output.square() + local.mean_target.square() + c1
    )
    return luminance, (2 * local.covariance + c2) / (local.var_output + local.var_target + c2)
