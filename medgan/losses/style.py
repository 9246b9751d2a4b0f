"""Computes MedGAN's style loss on Gram matrices of a frozen extractor's features (Armanious et al., eq. 5 and 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """Returns the Gram matrices F F^T / (h w d): (B, d, h, w) -> (B, d, d)."""
    batch, channels, rows, columns = features.shape
    flat = features.reshape(batch, channels, rows * columns)
    return flat @ flat.transpose(1, 2) / (rows * columns * channels)


def style_loss(output: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Returns sum_j 1/(4 d_j^2) ||Gram_j(output) - Gram_j(target)||_F^2, each block with weight 1, mean over the batch.

    Args:
        output, target: features of the chosen blocks, each (B, d, h, w).
    """
    terms = [
        (gram(mine) - gram(theirs)).square().sum(dim=(1, 2)).mean() / (4 * mine.shape[1] ** 2)
        for mine, theirs in zip(output, target, strict=True)
    ]
    return torch.stack(terms).sum()
