"""Builds the U-block, MedGAN's encoder-decoder with skip connections (Armanious et al., section 2.2)."""

import torch
from torch import Tensor, nn

from medgan.models.layers import doubled_widths, down, outputs_of, up

NUM_DROPPED = 3
"""Dropout follows this number of decoder layers, from the bottleneck up (Isola et al., pix2pix, 6.1.1)."""


class UBlock(nn.Module):
    """Encodes and decodes by 4x4 convolutions with stride 2, and concatenates mirrored layers.

    Args:
        base_channels: width of the first encoder layer; the widths double up to eight times that.
        depth: number of encoder layers; the input's sides must be multiples of 2**depth.
        norm: "instance", "batch" or "none"; not used on the first layer or at the bottleneck.
        dropout: probability of dropout in training, in the first three decoder layers; 0.5 in pix2pix, 0 for none.
        output: activation after the last layer, "tanh" or "none".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        base_channels: int,
        depth: int,
        norm: str,
        dropout: float = 0.0,
        output: str = "tanh",
    ) -> None:
        super().__init__()
        widths = doubled_widths(base_channels, depth)
        self.encoder = nn.ModuleList(
            down(widths[level - 1] if level else in_channels, width, norm=norm if 0 < level < depth - 1 else "none")
            for level, width in enumerate(widths)
        )
        self.decoder = nn.ModuleList(
            up(
                widths[level] * (1 if level == depth - 1 else 2),
                widths[level - 1],
                norm=norm,
                dropout=dropout if level >= depth - NUM_DROPPED else 0.0,
            )
            for level in reversed(range(1, depth))
        )
        self.last = nn.Sequential(
            nn.ConvTranspose2d(2 * base_channels, out_channels, 4, 2, 1),
            nn.Tanh() if output == "tanh" else nn.Identity(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W)."""
        *skips, image = outputs_of(self.encoder, image)
        for layer in self.decoder:
            image = torch.cat([layer(image), skips.pop()], dim=1)
        return self.last(image)
