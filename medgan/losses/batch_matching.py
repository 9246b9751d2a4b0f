"""Computes losses that compare whole batches: feature matching and maximum mean discrepancy."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medgan.errors import InputError

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""These are the kernels' bandwidths, as multiples of the batches' mean squared distance."""


def feature_matching_loss(output: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Returns sum_i mean (E_b D_i(output) - E_b D_i(target))^2, E_b the mean over the batch (Salimans et al., 2016).

    Args:
        output: the discriminator's features, each (B, C, h, w).
        target: the same features of targets, which need not belong to the outputs.
    """
    pairs = zip(output, target, strict=True)
    return torch.stack([(mine.mean(dim=0) - theirs.mean(dim=0)).square().mean() for mine, theirs in pairs]).sum()


def mmd_loss(output: Tensor, target: Tensor) -> Tensor:
    """Returns the unbiased squared maximum mean discrepancy for summed Gaussian kernels (Gretton et al., 2012, eq. 3).

    Args:
        output, target: (B, C, H, W), B of 2 or more.

    Raises:
        InputError: the batch holds one image; there are no pairs to compare.
    """
    number = output.shape[0]
    if number < 2:
        raise InputError("E-LOSS-01", number=number)
    points = torch.cat([output, target]).flatten(1)
    distances = (points[:, None] - points[None]).square().mean(dim=2)
    scale = distances.detach().sum() / (2 * number * (2 * number - 1))
    kernel = torch.stack([torch.exp(-distances / (2 * width * scale + 1e-12)) for width in BANDWIDTHS]).sum(dim=0)
    within = kernel - torch.diag(kernel.diagonal())
    pairs = number * (number - 1)
    own, theirs = within[:number, :number].sum() / pairs, within[number:, number:].sum() / pairs
    return own + theirs - 2 * kernel[:number, number:].mean()
