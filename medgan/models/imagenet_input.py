"""Prepares images for networks trained on ImageNet, and reads features off a chain of layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medgan.errors import InputError
from medgan.models.layers import outputs_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""These belong to ImageNet's red, green and blue in [0, 1], with which torchvision's weights were trained."""


class ImageNetInput(nn.Module):
    """Converts gray images to the input of an ImageNet network; loss weights are valid for this convention only.

    Images in [-1, 1] are mapped to [0, 1], gray is repeated to three channels, and ImageNet's mean and standard
    deviation are applied. LPIPS's own scaling layer does the same (test_lpips.py).

    Args:
        least: shortest side, in pixels, for which the deepest layer has an output.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: str, least: int) -> None:
        super().__init__()
        self.network, self.least = network, least
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, 1, H, W) in [-1, 1] to (B, 3, H, W).

        Raises:
            InputError: the image is too small.
        """
        rows, columns = image.shape[-2:]
        if min(rows, columns) < self.least:
            raise InputError("E-EXTRACTOR-06", network=self.network, least=self.least, rows=rows, columns=columns)
        return ((image.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.std


def features_at(ends: Sequence[int], layers: nn.Sequential, hidden: Tensor) -> tuple[Tensor, ...]:
    """Returns the output of the layers before each of `ends`, from shallow to deep."""
    return tuple(outputs_of([layers[start:end] for start, end in zip([0, *ends], ends, strict=False)], hidden))
