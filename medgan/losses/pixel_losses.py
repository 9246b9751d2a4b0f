"""Losses on the pixels of one image, or of two."""

from __future__ import annotations

from torch import Tensor


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two (B, C, H, W)."""
    return (output - target).abs().mean()


def l2_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two (B, C, H, W)."""
    return (output - target).square().mean()


def tv_loss(output: Tensor) -> Tensor:
    """Total variation: mean squared difference of neighbors along rows plus that along columns.

    The squared form of style transfer (Mahendran & Vedaldi, 2015, beta = 2), which Fila-sGAN's port uses.
    """
    rows = (output[..., 1:, :] - output[..., :-1, :]).square().mean()
    return rows + (output[..., 1:] - output[..., :-1]).square().mean()


PIXEL = {"l1": l1_loss, "l2": l2_loss}
