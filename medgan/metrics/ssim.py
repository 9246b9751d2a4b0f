"""Computes SSIM and the related metrics UQI and MS-SSIM, with a Gaussian window of 11 pixels."""

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from medgan.metrics.pixel_errors import average, require_size

WINDOW, SIGMA = 11, 1.5
BORDER = WINDOW // 2
MS_SSIM_SIZE = WINDOW * 2**4
"""This is the shortest side in pixels for which the fifth, coarsest scale holds one window."""
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""These belong to MS-SSIM's scales, fine to coarse (Wang, Simoncelli and Bovik, 2003, section 3.2)."""
ROUNDING = 1e-13
"""A variance below this share of the squared mean is a rounding error of float64: the window is constant."""


def ssim(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Returns the structural similarity (Wang et al., 2004, eq. 13), (B,): the mean of `ssim_map`. 1 is best.

    Args:
        output, target: (B, 1, H, W).
        data_range: highest minus lowest possible value; the stabilizing constants scale with it.
        mask: bool, (B, 1, H, W): only windows centered on its pixels count. NaN if there are none.
    """
    return average(ssim_map(output, target, data_range=data_range), mask)


def uqi(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Returns the universal image quality index (Wang and Bovik, 2002), (B,): the mean of `uqi_map`. 1 is best.

    Args:
        output, target: (B, 1, H, W), not negative; 0 is black.
        mask: bool, (B, 1, H, W): only windows centered on its pixels count. NaN if there are none.
    """
    return average(uqi_map(output, target), mask)


def ssim_map(output: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """Returns the SSIM of each window that lies inside the image, as in the paper: (B, 1, H - 10, W - 10).

    Raises:
        InputError: a side is shorter than the window.
    """
    require_size(target, WINDOW, "ssim")
    _, full = structural_similarity_index_measure(
        output, target, data_range=data_range, reduction="none", return_full_image=True
    )
    return full[..., BORDER:-BORDER, BORDER:-BORDER]


def uqi_map(output: Tensor, target: Tensor) -> Tensor:
    """Returns the UQI of each whole window, (B, 1, H - 10, W - 10): SSIM with constants of 0, and rules for 0/0.

    The rules are those of the authors' program: if both windows are constant, only their luminance is compared; two
    black windows count 1; a constant window and a varying one give 0. torchmetrics' UQI is not used: it is 0.31 for
    equal images on black, and -1.7e10 in float32 where a window is constant. The computation is in float64, because a
    variance is a small difference of large numbers.

    Raises:
        InputError: a side is shorter than the window.
    """
    require_size(target, WINDOW, "uqi")
    mean_output, mean_target, variance, covariance = _moments(output, target)
    power = mean_output.square() + mean_target.square()
    luminance = torch.where(power > 0, 2 * mean_output * mean_target / power, 1.0)
    structure = torch.where(variance > ROUNDING * power, 2 * covariance / variance, 1.0)
    return (luminance * structure).to(target)


def _moments(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns both means, the sum of both variances and the covariance of each whole window, in float64 on the CPU."""
    first, second = output.double().cpu(), target.double().cpu()
    images = torch.stack([first, second, first.square() + second.square(), first * second])
    filtered = gaussian_filter(images.numpy(), SIGMA, radius=BORDER, axes=(-2, -1))
    mean_output, mean_target, power, product = torch.from_numpy(filtered)[..., BORDER:-BORDER, BORDER:-BORDER]
    return (
        mean_output,
        mean_target,
        power - mean_output.square() - mean_target.square(),
        product - mean_output * mean_target,
    )


def ms_ssim(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Returns the multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003, eq. 7), (B,). 1 is best.

    Each of the five scales halves the one before; a negative mean of a scale counts 0. Without a mask the function is
    torchmetrics', whose coarsest mean includes windows that reach into the reflected image beyond the border.

    Args:
        output, target: (B, 1, H, W).
        data_range: highest minus lowest possible value.
        mask: bool, (B, 1, H, W): only windows centered on its pixels count. NaN if a scale has none.

    Raises:
        InputError: a side is shorter than 176 pixels.
    """
    require_size(target, MS_SSIM_SIZE, "ms_ssim")
    if mask is None:
        return multiscale_structural_similarity_index_measure(output, target, data_range=data_range, reduction="none")
    first, second = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    total = torch.ones(len(target), dtype=torch.float64)
    output, target, inside = output.double().cpu(), target.double().cpu(), mask.cpu()
    for scale, exponent in enumerate(EXPONENTS):
        mean_output, mean_target, variance, covariance = _moments(output, target)
        similarity = (2 * covariance + second) / (variance + second)
        if scale == len(EXPONENTS) - 1:
            power = mean_output.square() + mean_target.square()
            similarity = similarity * (2 * mean_output * mean_target + first) / (power + first)
        total *= average(similarity, inside).clamp(min=0) ** exponent
        output, target, inside = avg_pool2d(output, 2), avg_pool2d(target, 2), inside[..., ::2, ::2]
    return total.to(mask.device)
