"""Builds the in-domain feature extractor: an encoder that learns the user's own images by restoring them.

SynthRAD 2025's winner also used a loss on features of a network that knows such images. This one is self-supervised:
context restoration (Chen et al., Medical Image Analysis 2019) and denoising (Vincent et al., 2008).
"""

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from medgan.errors import InputError
from medgan.models.layers import outputs_of

NUM_STAGES = 4
LOCAL_MEAN, WINDOW = 0.9, 9
"""The encoder sees the image less so much of its mean over so many pixels: structure rather than gray level.

Otherwise the level dominates the features and their correlations, and the style term is many times as strong beside the
content term as with features of natural images, which depends on the first weights besides."""
NOISE = 0.1
NUM_SQUARES, SHARE = 4, 6
"""Training blanks NUM_SQUARES squares, whose side is the image's shorter side divided by SHARE."""


def _normalized(channels: int) -> nn.Module:
    """Returns a norm of up to eight groups of two channels or more; instance norm would hide shifts of intensity."""
    return nn.GroupNorm(gcd(8, channels // 2), channels)


class Encoder(nn.Module):
    """Applies four stages, each a 3x3 convolution with stride 2 and one with stride 1; the first stage has no norm.

    Args:
        deepest: number of stages to build, 1 to 4.
        base_channels: width of the first stage; the widths double.
        local_mean: share of the local mean that is taken from the image; 0 in files from before there was one.
    """

    def __init__(self, deepest: int = NUM_STAGES, base_channels: int = 32, local_mean: float = LOCAL_MEAN) -> None:
        super().__init__()
        self.base_channels, self.local_mean = base_channels, local_mean
        stages, channels = [], 1
        for stage in range(deepest):
            width = base_channels * 2**stage
            stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, stride=2, padding=1),
                    _normalized(width) if stage else nn.Identity(),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(width, width, 3, padding=1),
                    _normalized(width) if stage else nn.Identity(),
                    nn.LeakyReLU(0.2),
                )
            )
            channels = width
        self.features = nn.Sequential(*stages)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 1, H, W) to each stage's output (B, base_channels * 2**j, H / 2**(j+1), W / 2**(j+1))."""
        level = avg_pool2d(image, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
        return tuple(outputs_of(self.features, image - self.local_mean * level))


class Autoencoder(nn.Module):
    """Restores its input by an encoder and a mirrored decoder without skips; in training mode it corrupts it first.

    Train it as a generator whose source and target are the same image; then keep its `encoder`.
    """

    def __init__(self, base_channels: int = 32) -> None:
        super().__init__()
        self.divisor = 2**NUM_STAGES
        self.encoder = Encoder(NUM_STAGES, base_channels)
        layers: list[nn.Module] = []
        for stage in reversed(range(1, NUM_STAGES)):
            width = base_channels * 2 ** (stage - 1)
            norm = _normalized(width) if width > base_channels else nn.Identity()
            layers += [nn.ConvTranspose2d(2 * width, width, 4, 2, 1), norm, nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.ConvTranspose2d(base_channels, 1, 4, 2, 1), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, 1, H, W) to (B, 1, H, W), both in [-1, 1].

        Raises:
            InputError: H or W is not a multiple of `divisor`.
        """
        rows, columns = image.shape[-2:]
        if rows % self.divisor or columns % self.divisor:
            raise InputError("E-NETWORK-09", divisor=self.divisor, rows=rows, columns=columns)
        return self.decoder(self.encoder(corrupted(image) if self.training else image)[-1])


def corrupted(image: Tensor) -> Tensor:
    """Returns the images (B, 1, H, W) with Gaussian noise and a few squares blanked to -1, at places of their own."""
    batch, _, rows, columns = image.shape
    side = max(1, min(rows, columns) // SHARE)
    places = torch.rand(2, batch, NUM_SQUARES, 1, device=image.device)
    top, left = (places[0] * (rows - side + 1)).floor(), (places[1] * (columns - side + 1)).floor()
    row, column = torch.arange(rows, device=image.device), torch.arange(columns, device=image.device)
    inside_rows = ((row >= top) & (row < top + side)).unsqueeze(-1)
    inside_columns = ((column >= left) & (column < left + side)).unsqueeze(-2)
    blank = (inside_rows & inside_columns).any(dim=1, keepdim=True)
    return (image + NOISE * torch.randn_like(image)).masked_fill(blank, -1.0)
