"""Builds the U-block of double, padded convolutions at full resolution, with norm (Ronneberger et al., U-Net, 2015)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from medgan.models.layers import doubled_widths, normalization
from medgan.models.ublock import NUM_DROPPED


def _double(in_channels: int, out_channels: int, norm: str, dropout: float = 0.0) -> nn.Sequential:
    """Returns twice 3x3 convolution - norm - ReLU, then dropout: (B, C, H, W) -> (B, C', H, W)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        normalization(norm, out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        normalization(norm, out_channels),
        nn.ReLU(),
        *([nn.Dropout(dropout)] if dropout else []),
    )


class DoubleUBlock(nn.Module):
    """Encodes and decodes by double 3x3 convolutions between poolings, and concatenates mirrored levels.

    It can replace a U-block in a CasNet. Its first level keeps the image's resolution; that of a U-block halves it.
    The last convolution is 3x3, not 1x1: with nine times the inputs it learns the value of air, -1, in fewer steps.

    Args:
        base_channels: width of the first level; the widths double up to eight times that.
        depth: number of poolings, four in the paper; the input's sides must be multiples of 2**depth.
        norm: "instance", "batch" or "none"; not used at the bottleneck.
        dropout: probability of dropout in training, in the first three decoder levels; 0 for none.
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
        widths = doubled_widths(base_channels, depth + 1)
        self.encoder = nn.ModuleList(
            _double(widths[level - 1] if level else in_channels, width, norm if level < depth else "none")
            for level, width in enumerate(widths)
        )
        levels = list(reversed(range(depth)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[level + 1], widths[level], 2, 2) for level in levels)
        self.decoder = nn.ModuleList(
            _double(2 * widths[level], widths[level], norm, dropout if level >= depth - NUM_DROPPED else 0.0)
            for level in levels
        )
        self.last = nn.Sequential(
            nn.Conv2d(base_channels, out_channels, 3, padding=1), nn.Tanh() if output == "tanh" else nn.Identity()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W)."""
        skips: list[Tensor] = []
        for level in self.encoder:
            image = level(max_pool2d(image, 2) if skips else image)
            skips.append(image)
        skips.pop()
        for up, level in zip(self.up, self.decoder, strict=True):
            image = level(torch.cat([up(image), skips.pop()], dim=1))
        return self.last(image)
