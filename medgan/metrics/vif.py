"""Visual information fidelity in the pixel domain."""

from __future__ import annotations

import torch
from torch import Tensor

from medgan.metrics.windows import blur, moments, require_size

WINDOWS = (17, 9, 5, 3)
"""Side of the Gaussian window at each scale, in pixels; its sigma is a fifth of that."""
VIF_SIZE = 41
"""The least side, in pixels, whose coarsest scale still holds one window."""
NOISE_VARIANCE = 2.0
"""Of the eye's own noise, on values of 0..255."""
ROUNDING = 1e-8
"""A variance below this, on values of 0..255, is float64's rounding."""


def vif(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """The part of the target's information that the output keeps (Sheikh and Bovik, 2006; `vifp_mscale`), (B,).

    1 for equal images, 0 for unrelated ones, above 1 where the output is the target with more contrast. Higher is
    better. Not symmetric.

    Args:
        output: (B, 1, H, W).
        target: (B, 1, H, W).
        data_range: highest minus lowest possible value.
        mask: bool, (B, 1, H, W): both images are set to 0 outside it, as SynthRAD does for its structural metric.

    Returns:
        (B,), NaN where the target is constant and so tells nothing, an empty mask included.

    Raises:
        InputError: a side is shorter than 41 pixels.
    """
    require_size(target, VIF_SIZE, "vif")
    if mask is not None:
        output, target = output * mask, target * mask
    output, target = (image.double() * (255 / data_range) for image in (output, target))
    kept, told = torch.zeros(2, len(target), dtype=torch.float64, device=target.device)
    for scale, window in enumerate(WINDOWS):
        sigma = window / 5
        if scale > 0:
            output, target = (blur(image, window=window, sigma=sigma)[..., ::2, ::2] for image in (output, target))
        local = moments(output, target, window=window, sigma=sigma)
        signal = local.var_target.where(local.var_target > ROUNDING, 0.0)
        related = (local.covariance > 0) & (signal > 0) & (local.var_output > ROUNDING)
        gain = torch.where(related, local.covariance / (signal + ROUNDING), 0.0)
        distortion = (local.var_output - gain * local.covariance).clamp(min=ROUNDING)
        kept = kept + torch.log1p(gain.square() * signal / (distortion + NOISE_VARIANCE)).sum(dim=(1, 2, 3))
        told = told + torch.log1p(signal / NOISE_VARIANCE).sum(dim=(1, 2, 3))
    return kept / told
