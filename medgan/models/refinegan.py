"""Builds RefineGAN's residual networks (Quan et al., IEEE TMI 2018, section III), in the image domain."""

from torch import Tensor, nn

from medgan.models.layers import (
    ResidualBlock,
    discriminator_channels,
    discriminator_input,
    doubled_widths,
    initialize,
    normalization,
    normalize_spectrally,
    outputs_of,
)
from medgan.models.patchgan import PatchOutput
from medgan.models.ublock import NUM_DROPPED


def _residual_down(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """Returns 3x3 convolution with stride 2 and a residual block: (B, C, H, W) -> (B, C', H / 2, W / 2)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, 2, 1),
        normalization(norm, out_channels),
        nn.LeakyReLU(0.2),
        ResidualBlock(out_channels, norm=norm),
    )


def _residual_up(in_channels: int, out_channels: int, norm: str, dropout: float) -> nn.Sequential:
    """Returns 3x3 transposed convolution with stride 2 and a residual block: (B, C, H, W) -> (B, C', 2 H, 2 W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1),
        normalization(norm, out_channels),
        nn.LeakyReLU(0.2),
        ResidualBlock(out_channels, norm=norm, dropout=dropout),
    )


class ResidualUBlock(nn.Module):
    """Encodes and decodes by residual blocks and adds mirrored layers; it can replace a U-block in a CasNet.

    Two things of the paper are left out for the translation between contrasts: the third convolution in the middle of
    the residual block, of half the width, and the sum of the network's output and input, an aliased image.

    Args:
        base_channels: width of the first encoder level; the widths double up to eight times that.
        depth: number of encoder levels, four in the paper; the input's sides must be multiples of 2**depth.
        norm: "instance", "batch" or "none"; not used at the bottleneck.
        dropout: probability of dropout in training, in the first three decoder levels' residual blocks; 0 for none.
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
            _residual_down(widths[level - 1] if level else in_channels, width, norm if level < depth - 1 else "none")
            for level, width in enumerate(widths)
        )
        self.decoder = nn.ModuleList(
            _residual_up(widths[level], widths[max(level - 1, 0)], norm, dropout if level >= depth - NUM_DROPPED else 0)
            for level in reversed(range(depth))
        )
        self.last = nn.Sequential(
            nn.Conv2d(base_channels, out_channels, 3, padding=1), nn.Tanh() if output == "tanh" else nn.Identity()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W)."""
        *skips, image = outputs_of(self.encoder, image)
        for layer in self.decoder:
            image = layer(image) + skips.pop() if skips else layer(image)
        return self.last(image)


class ResidualDiscriminator(nn.Module):
    """Applies four levels of a strided convolution and a residual block, then a convolution to one channel of logits.

    Args:
        base_channels: width of the first level; the widths double up to eight times that; 64 in the paper.
        norm: "instance", "batch" or "none".
        sees: "source_and_image" or "image".
    """

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
        self.least = 32  # a smaller image ends as a single pixel, which cannot be normalized
        widths = [discriminator_channels(sees, source_channels, image_channels), *doubled_widths(base_channels, 4)]
        self.hidden = nn.ModuleList(
            _residual_down(entering, leaving, norm) for entering, leaving in zip(widths, widths[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.apply(initialize)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, source: Tensor, image: Tensor) -> PatchOutput:
        """Maps (B, C, H, W) and (B, C', H, W) to logits (B, 1, H / 16, W / 16) and the four levels' activations.

        Raises:
            InputError: a side of the image is smaller than 32.
        """
        inputs = discriminator_input(self.sees, source, image, least=self.least)
        features = outputs_of(self.hidden, inputs)
        return PatchOutput(self.last(features[-1]), tuple(features))
