"""Builds a conditional variational autoencoder as a generator (Kingma & Welling, 2014; Sohn et al., 2015)."""

import torch
from torch import Tensor, nn

from medgan.models.layers import doubled_widths, down, initialize, require_sides, up

NUM_LEVELS = 4


class VariationalNet(nn.Module):
    """Encodes by four levels to a normal distribution over latent maps, and decodes a sample by four, without skips.

    In training mode the latent is drawn: mean + deviation x noise. In evaluation mode it is the mean, so that a
    translation is reproducible.

    Args:
        base_channels: width of the first layer and of the latent; the widths between double from level to level.
        norm: "instance", "batch" or "none"; not used on the first layer or at the bottleneck.
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
        self.mean = nn.Conv2d(eight, base_channels, 1)
        self.log_variance = nn.Conv2d(eight, base_channels, 1)
        self.decoder = nn.Sequential(
            up(base_channels, eight, norm=norm), up(eight, four, norm=norm), up(four, two, norm=norm)
        )
        self.last = nn.Sequential(nn.ConvTranspose2d(two, out_channels, 4, 2, 1), nn.Tanh())
        self.apply(initialize)

    def forward(self, source: Tensor, with_latent: bool = False) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Maps (B, C, H, W) to (B, C', H, W), both in [-1, 1].

        Args:
            with_latent: whether to return (mean, log variance, output) instead; the latent has the shape
                (B, base_channels, H / 16, W / 16).

        Raises:
            InputError: H or W is not a multiple of 16.
        """
        require_sides(source, self.divisor)
        hidden = self.encoder(source)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        output = self.last(self.decoder(latent))
        return (mean, log_variance, output) if with_latent else output
