"""Computes MedGAN's perceptual loss on the discriminator's features (Armanious et al., eq. 3 and 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from medgan.errors import InputError


def perceptual_loss(
    output: Sequence[Tensor], target: Sequence[Tensor], weights: Sequence[float] | None = None
) -> Tensor:
    """Returns sum_i lambda_i 1/(h w d) ||D_i(output) - D_i(target)||_1, mean over the batch.

    Args:
        output: levels, each (B, C, h, w): the image itself (i = 0, the pixel level), then the discriminator's features.
        target: the same levels of the target.
        weights: lambda_i, one a level; None: each weight is 1.

    Raises:
        InputError: the numbers of weights and levels differ.
    """
    if weights is None:
        weights = [1.0] * len(output)
    if len(weights) != len(output):
        raise InputError("E-LOSS-02", num_output=len(output), num_weights=len(weights))
    levels = zip(weights, output, target, strict=True)
    return torch.stack([weight * l1_loss(mine, theirs) for weight, mine, theirs in levels]).sum()
