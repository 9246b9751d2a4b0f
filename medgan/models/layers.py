"""Builds the parts that networks share: layers, initialization, a discriminator's input, and checks of sizes."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from medgan.errors import InputError


def normalization(kind: str, channels: int) -> nn.Module:
    """Returns an affine normalization of (B, channels, H, W), or the identity.

    Args:
        kind: "instance", "batch" or "none".
    """
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    raise InputError("E-NETWORK-10", kind=kind)


def doubled_widths(base_channels: int, num_levels: int) -> list[int]:
    """Returns the width of each level: doubled from level to level, up to eight times the base."""
    return [base_channels * min(2**level, 8) for level in range(num_levels)]


def down(in_channels: int, out_channels: int, *, norm: str) -> nn.Sequential:
    """Returns 4x4 convolution with stride 2 - norm - LeakyReLU(0.2): (B, C, H, W) -> (B, C', H / 2, W / 2)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 4, 2, 1), normalization(norm, out_channels), nn.LeakyReLU(0.2)
    )


def up(in_channels: int, out_channels: int, *, norm: str, dropout: float = 0.0) -> nn.Sequential:
    """Returns 4x4 transposed convolution with stride 2 - norm - ReLU - dropout: (B, C, H, W) -> (B, C', 2 H, 2 W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1),
        normalization(norm, out_channels),
        nn.ReLU(),
        *([nn.Dropout(dropout)] if dropout else []),
    )


class ResidualBlock(nn.Module):
    """Adds 3x3 convolution - norm - ReLU - dropout - 3x3 convolution - norm to the input (Johnson et al., 2016).

    Args:
        norm: "instance", "batch" or "none".
        dropout: probability of dropout in training; 0 for none.
        padding: "zeros" or "reflect", which needs sides of at least 2.
    """

    def __init__(
        self, channels: int, *, norm: str, dropout: float = 0.0, padding: Literal["zeros", "reflect"] = "zeros"
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding),
            normalization(norm, channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding),
            normalization(norm, channels),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        return hidden + self.residual(hidden)


def initialize(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02), sets biases to zero (Isola et al., pix2pix, 6.2); apply with `network.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def outputs_of(layers: Iterable[nn.Module], hidden: Tensor) -> list[Tensor]:
    """Returns the output of each layer, where each layer gets the output of the one before."""
    outputs = []
    for layer in layers:
        hidden = layer(hidden)
        outputs.append(hidden)
    return outputs


def normalize_spectrally(network: nn.Module) -> None:
    """Makes the network divide every kernel by its largest singular value (Miyato et al., 2018)."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)


def discriminator_channels(sees: str, source_channels: int, image_channels: int) -> int:
    """Returns the number of channels of a discriminator's input.

    Args:
        sees: "source_and_image" (conditional) or "image".
    """
    if sees == "source_and_image":
        return source_channels + image_channels
    if sees == "image":
        return image_channels
    raise InputError("E-NETWORK-11", sees=sees)


def discriminator_input(sees: str, source: Tensor, image: Tensor, *, least: int) -> Tensor:
    """Returns a discriminator's input: (B, C + C', H, W), or the image alone, (B, C', H, W).

    Raises:
        InputError: a side of the image is smaller than `least`.
    """
    rows, columns = image.shape[-2:]
    if min(rows, columns) < least:
        raise InputError("E-NETWORK-12", least=least, rows=rows, columns=columns)
    return torch.cat([source, image], dim=1) if sees == "source_and_image" else image


def require_sides(source: Tensor, divisor: int, least: int = 1) -> None:
    """Refuses a source whose sides do not fit a generator.

    Raises:
        InputError: H or W is not a multiple of `divisor`, or smaller than `least`.
    """
    rows, columns = source.shape[-2:]
    if rows % divisor or columns % divisor:
        raise InputError("E-NETWORK-13", divisor=divisor, rows=rows, columns=columns)
    if min(rows, columns) < least:
        raise InputError("E-NETWORK-14", least=least, rows=rows, columns=columns)
