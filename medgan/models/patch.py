"""The conditional patch discriminator (Armanious et al., section 2.1; Isola et al., pix2pix, 3.2.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalized

from medgan.models.blocks import initialize, normalization

LAYERS = {16: 1, 34: 2, 70: 3, 142: 4}
"""Receptive field in pixels -> convolutions with stride 2."""


class PatchOutput(NamedTuple):
    """One judgement a patch, (B, 1, h, w), and the hidden layers' activations, shallow to deep."""

    logits: Tensor
    features: tuple[Tensor, ...]


class PatchDiscriminator(nn.Module):
    """Judges patches of (source, image): is `image` the real target of `source`?

    Args:
        patch: receptive field in pixels: 16, 34, 70 or 142.
        base_channels: width of the first layer; the widths double up to eight times that.
        norm: "instance", "batch" or "none"; not on the first layer.
        spectral_norm: divide every kernel by its largest singular value (Miyato et al., 2018).
        in_channels: channels of source and image together.
    """

    def __init__(
        self,
        *,
        patch: int,
        base_channels: int = 64,
        norm: str = "instance",
        spectral_norm: bool = False,
        in_channels: int = 2,
    ) -> None:
        super().__init__()
        if patch not in LAYERS:
            raise ValueError(f"patch: expected one of {', '.join(map(str, LAYERS))}; got {patch}")
        self.patch = patch
        num_strided = LAYERS[patch]
        widths = [base_channels * min(2**level, 8) for level in range(num_strided + 1)]
        self.hidden = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[level - 1] if level else in_channels, width, 4, 2 if level < num_strided else 1, 1),
                normalization(norm if level else "none", width),
                nn.LeakyReLU(0.2),
            )
            for level, width in enumerate(widths)
        )
        self.last = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        self.apply(initialize)
        if spectral_norm:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    spectrally_normalized(module)

    def forward(self, source: Tensor, image: Tensor) -> PatchOutput:
        """(B, C, H, W) and (B, C', H, W) -> logits and features.

        Raises:
            ValueError: the image is smaller than a patch.
        """
        if min(image.shape[-2:]) < self.patch:
            raise ValueError(f"discriminator: a patch of {self.patch} is larger than the image {tuple(image.shape)}")
        features = []
        hidden = torch.cat([source, image], dim=1)
        for layer in self.hidden:
            hidden = layer(hidden)
            features.append(hidden)
        return PatchOutput(self.last(hidden), tuple(features))
