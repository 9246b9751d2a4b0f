"""Visual information fidelity in the pixel domain."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import visual_information_fidelity

from medgan.metrics.pixel_errors import require_size

VIF_SIZE = 41
"""The least side, in pixels, whose coarsest scale still holds one window."""


def vif(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """The part of the target's information that the output keeps (Sheikh and Bovik, 2006; `vifp_mscale`), (B,).

    1 for equal images, 0 for unrelated ones, above 1 where the output is the target with more contrast. Higher is
    better. Not symmetric. Only variances count, so the target's median is taken off both images first: without that
    float32, a tenth of float64's time, is off by up to half where most of the target is flat and bright.

    Args:
        output: (B, 1, H, W).
        target: (B, 1, H, W).
        data_range: highest minus lowest possible value.
        mask: bool, (B, 1, H, W): both images are set to 0 outside it, so that a small body counts
            less than its share: compare values of the same patients only.

    Returns:
        (B,), NaN where the target is constant and so tells nothing, an empty mask included.

    Raises:
        InputError: a side is shorter than 41 pixels.
    """
    require_size(target, VIF_SIZE, "vif")
    if mask is not None:
        output, target = output * mask, target * mask
    level = target.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    output, target = ((image - level) * (255 / data_range) for image in (output, target))
    return visual_information_fidelity(output, target, reduction="none")
