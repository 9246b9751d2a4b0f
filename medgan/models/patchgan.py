"""Builds the conditional patch discriminator (Armanious et al., section 2.1; Isola et al., pix2pix, 3.2.2)."""

from typing import NamedTuple

from torch import Tensor, nn

from medgan.errors import InputError
from medgan.models.layers import (
    discriminator_channels,
    discriminator_input,
    doubled_widths,
    initialize,
    normalization,
    normalize_spectrally,
    outputs_of,
)

LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""This maps the receptive field in pixels to the number of convolutions with stride 2."""


class PatchOutput(NamedTuple):
    """Holds one logit a patch, (B, 1, h, w), and the hidden layers' activations, from shallow to deep."""

    logits: Tensor
    features: tuple[Tensor, ...]


class PatchDiscriminator(nn.Module):
    """Rates patches of (source, image): is `image` the real target of `source`?

    Args:
        patch: receptive field in pixels: 16, 34, 70, 142 or 286; or 1, two hidden layers of 1x1 convolutions that
            rate each pixel alone.
        base_channels: width of the first layer; the widths double up to eight times that.
        norm: "instance", "batch" or "none"; not used on the first layer.
        spectral_norm: whether to divide every kernel by its largest singular value (Miyato et al., 2018).
        sees: "source_and_image", or "image", which ignores the source.
    """

    def __init__(
        self,
        *,
        patch: int,
        base_channels: int = 64,
        norm: str = "instance",
        spectral_norm: bool = False,
        sees: str = "source_and_image",
        source_channels: int = 1,
        image_channels: int = 1,
    ) -> None:
        super().__init__()
        if patch not in LAYERS:
            raise InputError("E-NETWORK-15", layers=", ".join(map(str, LAYERS)), patch=patch)
        self.sees = sees
        self.patch = patch
        self.least = max(patch, 2)  # a single pixel cannot be normalized
        num_strided = LAYERS[patch]
        kernel, padding = (4, 1) if num_strided else (1, 0)
        widths = doubled_widths(base_channels, max(num_strided, 1) + 1)
        in_channels = discriminator_channels(sees, source_channels, image_channels)
        self.hidden = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    widths[level - 1] if level else in_channels,
                    width,
                    kernel,
                    stride=2 if level < num_strided else 1,
                    padding=padding,
                ),
                normalization(norm if level else "none", width),
                nn.LeakyReLU(0.2),
            )
            for level, width in enumerate(widths)
        )
        self.last = nn.Conv2d(widths[-1], 1, kernel, padding=padding)
        self.apply(initialize)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, source: Tensor, image: Tensor) -> PatchOutput:
        """Maps (B, C, H, W) and (B, C', H, W) to logits and features.

        Raises:
            InputError: the image is smaller than a patch.
        """
        inputs = discriminator_input(self.sees, source, image, least=self.least)
        features = outputs_of(self.hidden, inputs)
        return PatchOutput(self.last(features[-1]), tuple(features))
