"""Builds DiscoGAN's networks (Kim et al., 2017, arXiv 1703.05192, section 3.1 and the published code)."""

from torch import Tensor, nn

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

NUM_LEVELS = 4


class DiscoGenerator(nn.Module):
    """Translates by four 4x4 convolutions and four transposed convolutions of stride 2, without skip connections.

    Args:
        base_channels: width of the first layer, doubled from level to level; 64 in the paper.
        norm: "instance", "batch" (as in the paper) or "none"; not used on the first layer. Unlike in the paper it is
            not used at the bottleneck, which is one pixel for 16 x 16.
    """

    def __init__(
        self, *, base_channels: int = 64, norm: str = "instance", in_channels: int = 1, out_channels: int = 1
    ) -> None:
        super().__init__()
        self.divisor = 2**NUM_LEVELS
        one, two, four, eight = doubled_widths(base_channels, NUM_LEVELS)
        self.encoder = nn.Sequential(
            down(in_channels, one, norm="none"),
            down(one, two, norm=norm),
            down(two, four, norm=norm),
            down(four, eight, norm="none"),
        )
        self.decoder = nn.Sequential(up(eight, four, norm=norm), up(four, two, norm=norm), up(two, one, norm=norm))
        self.last = nn.Sequential(nn.ConvTranspose2d(one, out_channels, 4, 2, 1), nn.Tanh())
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W), both in [-1, 1].

        Raises:
            InputError: H or W is not a multiple of 16.
        """
        require_sides(source, self.divisor)
        return self.last(self.decoder(self.encoder(source)))


class DiscoDiscriminator(nn.Module):
    """Applies four 4x4 convolutions with stride 2 and an unpadded one to one channel; 64 x 64 pixels give one logit.

    Args:
        base_channels: width of the first layer, doubled from level to level; 64 in the paper.
        norm: "instance", "batch" (as in the paper) or "none"; not used on the first layer.
        sees: "source_and_image", or "image" (as in the paper).
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
        self.least = 64
        in_channels = discriminator_channels(sees, source_channels, image_channels)
        widths = [in_channels, *doubled_widths(base_channels, NUM_LEVELS)]
        self.hidden = nn.ModuleList(
            down(widths[level], widths[level + 1], norm=norm if level else "none") for level in range(NUM_LEVELS)
        )
        self.last = nn.Conv2d(widths[-1], 1, 4)
        self.apply(initialize)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, source: Tensor, image: Tensor) -> PatchOutput:
        """Maps (B, C, H, W) and (B, C', H, W) to logits and the activations of layers two, three and four.

        Raises:
            InputError: a side of the image is smaller than 64.
        """
        inputs = discriminator_input(self.sees, source, image, least=self.least)
        features = outputs_of(self.hidden, inputs)
        return PatchOutput(self.last(features[-1]), tuple(features[1:]))
