"""Computes MedGAN's content loss on a frozen extractor's features (Armanious et al., eq. 7)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import mse_loss


def content_loss(output: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Returns sum_j 1/(h w d) ||V_j(output) - V_j(target)||_F^2, every block with weight 1, mean over the batch.

    Args:
        output, target: features of the chosen blocks, each (B, C, h, w).
    """
    return torch.stack([mse_loss(mine, theirs) for mine, theirs in zip(output, target, strict=True)]).sum()
