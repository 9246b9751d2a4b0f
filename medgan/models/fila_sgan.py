"""Builds Fila-sGAN's networks for filamentary structures (Zhao et al., Medical Image Analysis 49, 2018) from a port."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgan.models.layers import (
    discriminator_channels,
    discriminator_input,
    doubled_widths,
    down,
    initialize,
    normalize_spectrally,
    outputs_of,
    require_sides,
    up,
)
from medgan.models.patchgan import PatchOutput

NUM_LEVELS = 6
NOISE = 400
"""This is the length of the noise vector."""
POOLED = 8
"""This is the side of the map that enters the fully connected layer."""


class FilamentGenerator(nn.Module):
    """Translates by a U-shape of six levels with concatenated skip connections and a noise vector at the bottleneck.

    In training mode the noise is drawn from N(0, 1). In evaluation mode it is zero, the mean, so that a translation is
    reproducible. The noise is projected to `base_channels` channels and repeated over the bottleneck's map.

    Args:
        base_channels: width of the first encoder layer; the widths double up to eight times that; 64 in the port.
        norm: "instance", "batch" or "none"; not used on the first layer or at the bottleneck.
    """

    def __init__(
        self, *, base_channels: int = 64, norm: str = "instance", in_channels: int = 1, out_channels: int = 1
    ) -> None:
        super().__init__()
        self.divisor = 2**NUM_LEVELS
        widths = doubled_widths(base_channels, NUM_LEVELS)
        self.encoder = nn.ModuleList(
            down(
                widths[level - 1] if level else in_channels, width, norm=norm if 0 < level < NUM_LEVELS - 1 else "none"
            )
            for level, width in enumerate(widths)
        )
        self.noise = nn.Sequential(nn.Linear(NOISE, base_channels), nn.LeakyReLU(0.2))
        self.decoder = nn.ModuleList(
            up(
                widths[level] + (base_channels if level == NUM_LEVELS - 1 else widths[level]),
                widths[level - 1],
                norm=norm,
            )
            for level in reversed(range(1, NUM_LEVELS))
        )
        self.last = nn.Sequential(nn.ConvTranspose2d(2 * base_channels, out_channels, 4, 2, 1), nn.Tanh())
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W), both in [-1, 1].

        Raises:
            InputError: H or W is not a multiple of 64.
        """
        require_sides(source, self.divisor)
        draw = torch.randn if self.training else torch.zeros
        noise = self.noise(draw(len(source), NOISE, dtype=source.dtype, device=source.device))
        *skips, hidden = outputs_of(self.encoder, source)
        hidden = torch.cat([hidden, noise[:, :, None, None].expand(-1, -1, *hidden.shape[-2:])], dim=1)
        for layer in self.decoder:
            hidden = torch.cat([layer(hidden), skips.pop()], dim=1)
        return self.last(hidden)


class FilamentDiscriminator(nn.Module):
    """Applies five convolutions with stride 2 and a fully connected layer; each image gets one logit.

    The last map is averaged or repeated to 8 x 8, its size at 256 x 256, so that every image fits the last layer.

    Args:
        base_channels: width of the first layer, 32 in the port; the other four are four times as wide.
        norm: "instance", "batch" or "none"; not used on the first layer or the last layer.
        sees: "source_and_image" or "image".
    """

    def __init__(
        self,
        *,
        base_channels: int = 32,
        norm: str = "instance",
        spectral_norm: bool = False,
        sees: str = "source_and_image",
        source_channels: int = 1,
        image_channels: int = 1,
    ) -> None:
        super().__init__()
        self.sees = sees
        self.least = 32
        in_channels, wide = discriminator_channels(sees, source_channels, image_channels), 4 * base_channels
        self.hidden = nn.ModuleList(
            [
                down(in_channels, base_channels, norm="none"),
                down(base_channels, wide, norm=norm),
                down(wide, wide, norm=norm),
                down(wide, wide, norm=norm),
                down(wide, wide, norm="none"),
            ]
        )
        self.last = nn.Linear(wide * POOLED**2, 1)
        self.apply(initialize)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, source: Tensor, image: Tensor) -> PatchOutput:
        """Maps (B, C, H, W) and (B, C', H, W) to logits (B, 1, 1, 1) and the five layers' activations.

        Raises:
            InputError: a side of the image is smaller than 32.
        """
        inputs = discriminator_input(self.sees, source, image, least=self.least)
        features = outputs_of(self.hidden, inputs)
        pooled = functional.adaptive_avg_pool2d(features[-1], POOLED)
        return PatchOutput(self.last(pooled.flatten(1))[:, :, None, None], tuple(features))
