"""Builds CycleGAN's generator of residual blocks (Zhu et al., 2017, 7.2; Johnson et al., 2016)."""

from torch import Tensor, nn

from medgan.models.layers import ResidualBlock, initialize, normalization, require_sides


class ResNet(nn.Module):
    """Applies c7s1-64, d128, d256, nine R256, u128, u64, c7s1-C' and tanh, in the paper's notation.

    Norm and ReLU follow every layer but the last; the 7x7 convolutions and the residual blocks pad by reflection.

    Args:
        base_channels: width of the first layer; 64 in the paper.
        num_blocks: number of residual blocks; nine in the paper at 256 x 256, six at 128 x 128.
        norm: "instance" (as in the paper), "batch" or "none".
        dropout: probability of dropout in training, in the residual blocks; 0 for none.
    """

    def __init__(
        self,
        *,
        base_channels: int = 64,
        num_blocks: int = 9,
        norm: str = "instance",
        dropout: float = 0.0,
        in_channels: int = 1,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        self.divisor = 4
        one, two, four = base_channels, 2 * base_channels, 4 * base_channels
        self.layers = nn.Sequential(
            *(nn.Conv2d(in_channels, one, 7, padding=3, padding_mode="reflect"), normalization(norm, one), nn.ReLU()),
            *(nn.Conv2d(one, two, 3, 2, 1), normalization(norm, two), nn.ReLU()),
            *(nn.Conv2d(two, four, 3, 2, 1), normalization(norm, four), nn.ReLU()),
            *(ResidualBlock(four, norm=norm, dropout=dropout, padding="reflect") for _ in range(num_blocks)),
            *(nn.ConvTranspose2d(four, two, 3, 2, 1, output_padding=1), normalization(norm, two), nn.ReLU()),
            *(nn.ConvTranspose2d(two, one, 3, 2, 1, output_padding=1), normalization(norm, one), nn.ReLU()),
            *(nn.Conv2d(one, out_channels, 7, padding=3, padding_mode="reflect"), nn.Tanh()),
        )
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W), both in [-1, 1].

        Raises:
            InputError: H or W is not a multiple of 4, or smaller than 8.
        """
        require_sides(source, self.divisor, least=8)  # the residual blocks cannot reflect a single row
        return self.layers(source)
