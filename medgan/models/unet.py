"""The U-block: MedGAN's encoder-decoder with skips (Armanious et al., section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medgan.models.blocks import normalization


class UBlock(nn.Module):
    """Encoder-decoder of 4x4 convolutions with stride 2, mirrored layers concatenated.

    Args:
        in_channels: C of the input.
        out_channels: C' of the output.
        base_channels: width of the first encoder layer; the widths double up to eight times that.
        depth: encoder layers; the input's sides must be multiples of 2**depth.
        norm: "instance", "batch" or "none"; never on the first layer, nor at the bottleneck.
        output: "tanh" or "none", what follows the last layer.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, base_channels: int, depth: int, norm: str, output: str = "tanh"
    ) -> None:
        super().__init__()
        widths = [base_channels * min(2**level, 8) for level in range(depth)]
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[level - 1] if level else in_channels, width, 4, 2, 1),
                normalization(norm if 0 < level < depth - 1 else "none", width),
                nn.LeakyReLU(0.2),
            )
            for level, width in enumerate(widths)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(widths[level] * (1 if level == depth - 1 else 2), widths[level - 1], 4, 2, 1),
                normalization(norm, widths[level - 1]),
                nn.ReLU(),
            )
            for level in reversed(range(1, depth))
        )
        self.last = nn.Sequential(
            nn.ConvTranspose2d(2 * base_channels, out_channels, 4, 2, 1),
            nn.Tanh() if output == "tanh" else nn.Identity(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        skips: list[Tensor] = []
        for layer in self.encoder:
            image = layer(image)
            skips.append(image)
        skips.pop()
        for layer in self.decoder:
            image = torch.cat([layer(image), skips.pop()], dim=1)
        return self.last(image)
