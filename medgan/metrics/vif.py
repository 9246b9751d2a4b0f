"""Computes the visual information fidelity in the pixel domain."""

from torch import Tensor
from torchmetrics.functional.image import visual_information_fidelity

from medgan.metrics.pixel_errors import require_size

VIF_SIZE = 41
"""This is the shortest side in pixels for which the coarsest scale holds one window."""


def vif(output: Tensor, target: Tensor, *, data_range: float, mask: Tensor | None = None) -> Tensor:
    """Returns the share of the target's information in the output (Sheikh and Bovik, 2006; `vifp_mscale`), (B,).

    It is 1 for equal images, 0 for unrelated ones, above 1 if the output is the target with more contrast. Higher is
    better. It is not symmetric. Only variances count, so the target's median is first subtracted from both images.
    Without this, float32, ten times as fast as float64, is wrong by up to half if the target is mostly flat and bright.

    Args:
        output, target: (B, 1, H, W).
        data_range: highest minus lowest possible value.
        mask: bool, (B, 1, H, W): both images are set to 0 outside it. A small body then counts less than its share:
            compare values of the same patients only.

    Returns:
        (B,), NaN if the target is constant, for example because the mask is empty.

    Raises:
        InputError: a side is shorter than 41 pixels.
    """
    require_size(target, VIF_SIZE, "vif")
    if mask is not None:
        output, target = output * mask, target * mask
    level = target.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    output, target = ((image - level) * (255 / data_range) for image in (output, target))
    return visual_information_fidelity(output, target, reduction="none")
