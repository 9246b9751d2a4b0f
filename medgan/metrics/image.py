"""Image quality, one function a metric: (B, 1, H, W) twice in, (B,) out."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure


def ssim(output: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """Structural similarity, Gaussian window of 11 pixels with sigma 1.5 (Wang et al., 2004). Higher is better.

    The mean is over the windows that lie wholly inside the image, as in the paper and in scikit-image.
    """
    _, full = structural_similarity_index_measure(
        output, target, data_range=data_range, reduction="none", return_full_image=True
    )
    return full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in the images' own unit squared. Lower is better."""
    return (output - target).square().mean(dim=(1, 2, 3))


def psnr(output: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio in dB, at most 100 (equal images). Higher is better."""
    relative = ((output - target) / data_range).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(relative.clamp(min=1e-10))


def mae(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error in the images' own unit, over `mask` (B, 1, H, W) where given. Lower is better.

    An image whose mask is empty gives NaN.
    """
    error = (output - target).abs()
    if mask is None:
        return error.mean(dim=(1, 2, 3))
    return (error * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))
