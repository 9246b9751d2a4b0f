"""Builds BEGAN's discriminator: an autoencoder rates an image by how well it restores it (Berthelot et al., 2017)."""

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import interpolate

from medgan.models.layers import (
    discriminator_channels,
    discriminator_input,
    doubled_widths,
    initialize,
    normalization,
    normalize_spectrally,
)
from medgan.models.patchgan import PatchOutput

NUM_LEVELS = 5
DIVERSITY, RATE = 0.5, 0.001
"""These are the paper's gamma, the ratio of the fakes' error to the real images' error, and lambda_k, the step of k."""


class AutoencoderDiscriminator(nn.Module):
    """Encodes an image by five 3x3 convolutions with stride 2 and decodes it by convolutions after nearest neighbors.

    The activation is ELU. A conditional network encodes the source beside the image. The paper's code is fully
    connected; here the code is a map as wide as the first layer, so that images of every size fit.

    Args:
        base_channels: width of the first layer and of the code; the widths between double up to eight times that.
        norm: "instance", "batch" or "none" (as in the paper); not used on the first layer, the code or the last layer.
        sees: "source_and_image", or "image" (as in the paper).

    Attributes:
        fake_share: the paper's k, between 0 and 1: weight of the fakes' error; the real images' error has weight 1.
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
        entering = [discriminator_channels(sees, source_channels, image_channels), *widths]
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
        """Maps (B, C, H, W) and (B, C', H, W) to minus each pixel's error (B, 1, H, W) and the encoder's activations.

        Raises:
            InputError: a side of the image is smaller than 32.
        """
        hidden = discriminator_input(self.sees, source, image, least=self.least)
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
        """Sets k to k + lambda_k (gamma L(real) - L(fake)), within [0, 1] (equation 5); k is equal in all processes.

        Args:
            real, fake: mean errors of this process's images, scalars.
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
