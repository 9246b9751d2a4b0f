"""What the networks trained on ImageNet share: the input convention, and features read off a chain of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medgan.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1], as torchvision's weights were trained."""


class ImageNetInput(nn.Module):
    """Grey images as an ImageNet network wants them; weights of losses mean something for this convention only.

    Images in [-1, 1] are mapped to [0, 1], grey is repeated to three channels, and ImageNet's mean and standard
    deviation are applied. LPIPS's own scaling layer does the same (test_lpips.py).

    Args:
        network: its name, for the message.
        least: the shortest side, in pixels, from which its deepest layer gives anything.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: str, least: int) -> None:
        super().__init__()
        self.network, self.least = network, least
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1] -> (B, 3, H, W).

        Raises:
            ValueError: the image is too small.
        """
        rows, columns = image.shape[-2:]
        if min(rows, columns) < self.least:
            raise InputError("E-EXTRACTOR-06", network=self.network, least=self.least, rows=rows, columns=columns)
        return ((image.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.std


def features_at(ends: Sequence[int], layers: nn.Sequential, hidden: Tensor) -> tuple[Tensor, ...]:
    """What comes out of the layers before each of `ends`, shallow to deep."""
    outputs = []
    for start, end in zip([0, *ends], ends, strict=False):
        hidden = layers[start:end](hidden)
        outputs.append(hidden)
    return tuple(outputs)
