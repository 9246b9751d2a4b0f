"""Pieces the networks share: normalization by name and the pix2pix initialization."""

from __future__ import annotations

from torch import nn


def normalization(kind: str, channels: int) -> nn.Module:
    """Affine normalization over (B, channels, H, W), or nothing.

    Args:
        kind: "instance", "batch" or "none".
        channels: C of the map.
    """
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm: expected instance, batch or none; got {kind!r}")


def initialize(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02), biases zero (Isola et al., pix2pix, 6.2); apply with `network.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
