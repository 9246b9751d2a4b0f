"""BEGAN's discriminator: an autoencoder that judges an image by how well it restores it (Berthelot et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import interpolate

from medgan.models.layers import (
    doubled_widths,
    initialize,
    normalization,
    normalize_spectrally,
    seen,
    seen_channels,
)
from medgan.models.patchgan import PatchOutput

NUM_LEVELS = 5
DIVERSITY, RATE = 0.5, 0.001
"""The paper's gamma, the error of fakes as a share of that of real images, and lambda_k, how fast k follows."""


class AutoencoderDiscriminator(nn.Module):
    """Five 3x3 convolutions with stride 2 down to a narrow code, and the same way back; ELU, nearest neighbors up.

    A conditional one encodes the source beside the image. The paper's code is fully connected; this one is a map as
    wide as the first layer, so that images of every size fit.

    Args:
        base_channels: width of the first layer and of the code; the widths between double up to eight times that.
        norm: "instance", "batch" or "none", the paper's; not on the first layer, nor on the code, nor on the last.
        spectral_norm: divide every kernel by its largest singular value.
        sees: "source_and_image", or "image", the paper's.
        source_channels: C of the source.
        image_channels: C' of the image.

    Attributes:
        fake_share: the paper's k, between 0 and 1: what restoring fakes badly counts beside restoring real images well.
    """

    fake_share: Tensor

    def __init__(
        self,
        *,
        base_channels: int = 64,
        norm: str = "instance",
        spectral_norm: bool = False,
        sees: str = "source_and_image",
        source_channels: int = 1,
        image_channels: int = 1,
    ) -> None:
        super().__init__()
        self.sees = sees
        self.least = 2**NUM_LEVELS
        widths = [*doubled_widths(base_channels, NUM_LEVELS - 1), base_channels]
        entering = [seen_channels(sees, source_channels, image_channels), *widths]
        norms = ["none", *[norm] * (NUM_LEVELS - 2), "none"]
        self.encoder = nn.ModuleList(
            _layer(*channels, norm=kind, stride=2) for *channels, kind in zip(entering, widths, norms, strict=False)
        )
        back = widths[::-1]
        self.decoder = nn.ModuleList(_layer(*channels, norm=norm) for channels in zip(back, back[1:], strict=False))
        self.last = nn.Conv2d(widths[0], image_channels, 3, padding=1)
        self.register_buffer("fake_share", torch.tensor(0.0))
        self.apply(initialize)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, source: Tensor, image: Tensor) -> PatchOutput:
        """(B, C, H, W) and (B, C', H, W) -> minus the error of every pixel (B, 1, H, W), and the encoder's activations.

        Raises:
            ValueError: a side of the image is smaller than 32.
        """
        hidden = seen(self.sees, source, image, least=self.least)
        features, sizes = [], []
        for layer in self.encoder:
            sizes.append(hidden.shape[-2:])
            hidden = layer(hidden)
            features.append(hidden)
        for layer, size in zip([*self.decoder, self.last], reversed(sizes), strict=True):
            hidden = layer(interpolate(hidden, size=size))
        return PatchOutput(-(image - hidden).abs().mean(dim=1, keepdim=True), tuple(features))

    @torch.no_grad()
    def rebalance(self, real: Tensor, fake: Tensor) -> None:
        """k <- k + lambda_k (gamma L(real) - L(fake)), within [0, 1] (equation 5); the same in every process.

        Args:
            real: mean error of this process's real images, a scalar.
            fake: mean error of its fakes.
        """
        gap = DIVERSITY * real - fake
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(gap)
            gap /= distributed.get_world_size()
        self.fake_share.add_(RATE * gap).clamp_(0, 1)


def _layer(in_channels: int, out_channels: int, *, norm: str, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1), normalization(norm, out_channels), nn.ELU()
    )
