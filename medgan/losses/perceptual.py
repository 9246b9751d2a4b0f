"""MedGAN's perceptual loss: what the discriminator sees in output and target (Armanious et al., eq. 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import l1_loss


def perceptual_loss(output: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """sum_i 1/(h w d) ||D_i(output) - D_i(target)||_1, every level with weight 1, mean over the batch.

    Args:
        output: levels, each (B, C, h, w): the image itself (i = 0, the pixel level), then the discriminator's features.
        target: the same levels of the target.
    """
    return torch.stack([l1_loss(mine, theirs) for mine, theirs in zip(output, target, strict=True)]).sum()
