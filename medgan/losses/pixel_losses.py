"""Computes losses on the pixels of one image or of two images."""

from torch import Tensor


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Returns the mean absolute difference of two tensors (B, C, H, W)."""
    return (output - target).abs().mean()


def l2_loss(output: Tensor, target: Tensor) -> Tensor:
    """Returns the mean squared difference of two tensors (B, C, H, W)."""
    return (output - target).square().mean()


def tv_loss(output: Tensor) -> Tensor:
    """Returns the total variation: mean squared difference of neighboring rows plus that of columns.

    It is the squared form of style transfer (Mahendran & Vedaldi, 2015, beta = 2), as in Fila-sGAN's port.
    """
    rows = (output[..., 1:, :] - output[..., :-1, :]).square().mean()
    return rows + (output[..., 1:] - output[..., :-1]).square().mean()


PIXEL = {"l1": l1_loss, "l2": l2_loss}
