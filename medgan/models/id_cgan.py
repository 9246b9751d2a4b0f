"""Builds ID-CGAN's generator; its layers keep the image's size (Zhang et al., 2017, arXiv 1701.05957, section III)."""

from torch import Tensor, nn

from medgan.errors import InputError
from medgan.models.layers import initialize, normalization, outputs_of, require_sides

SKIPS = {1: 3, 3: 1}
"""This maps a decoder layer to the encoder layer whose output is added to its own; both are counted from zero."""


class ShallowNet(nn.Module):
    """Applies six convolutions and six transposed convolutions, all 3x3 with stride 1, with K = `base_channels`.

    The paper writes CBP(K)-CBP(K)-CBP(K)-CBP(K)-CBP(K/2)-CBP(1)-DBR(K/2)-DBR(K)-DBR(K)-DBR(K)-DBR(K)-DB(C')-Tanh:
    convolution, norm, PReLU, and transposed convolution, norm, ReLU. As in the published code the first and the last
    layer have no norm, and the outputs of the second and fourth convolutions, before their activation, are added to
    those of the fourth and second transposed convolutions.

    Args:
        base_channels: K, an even number; 64 in the paper.
        norm: "instance", "batch" (as in the paper) or "none".
    """

    def __init__(
        self, *, base_channels: int = 64, norm: str = "instance", in_channels: int = 1, out_channels: int = 1
    ) -> None:
        super().__init__()
        if base_channels < 2 or base_channels % 2:
            raise InputError("E-NETWORK-08", base_channels=base_channels)
        self.divisor = 1
        full, half = base_channels, base_channels // 2
        widths = [full, full, full, full, half, 1]
        self.encoder = nn.ModuleList([nn.Conv2d(in_channels, full, 3, padding=1)])
        self.encoder.extend(
            nn.Sequential(
                nn.PReLU(),
                nn.Conv2d(widths[index - 1], widths[index], 3, padding=1),
                normalization(norm, widths[index]),
            )
            for index in range(1, 6)
        )
        widths = [1, half, full, full, full, full]
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.ReLU() if index > 1 else nn.PReLU(),
                nn.ConvTranspose2d(widths[index - 1], widths[index], 3, padding=1),
                normalization(norm, widths[index]),
            )
            for index in range(1, 6)
        )
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(full, out_channels, 3, padding=1), nn.Tanh())
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H, W), both in [-1, 1]; H and W can be any numbers of at least 2.

        Raises:
            InputError: H or W is 1.
        """
        require_sides(source, self.divisor, least=2)
        encoded = outputs_of(self.encoder, source)
        hidden = encoded[-1]
        for index, layer in enumerate(self.decoder):
            hidden = layer(hidden)
            if index in SKIPS:
                hidden = hidden + encoded[SKIPS[index]]
        return self.last(hidden)
