"""CasNet: MedGAN's generator, U-blocks chained on images (Armanious et al., section 2.2)."""

from __future__ import annotations

from torch import Tensor, nn

from medgan.models.blocks import initialize
from medgan.models.unet import UBlock


class CasNet(nn.Module):
    """U-blocks in a chain: the output image of one is the input of the next.

    Args:
        num_blocks: N; six in the paper.
        base_channels: width of each block's first encoder layer; 64 in the paper.
        depth: encoder layers a block; eight in the paper, at 256 x 256.
        norm: "instance", "batch" or "none".
        between_blocks: "tanh" or "none", what follows each block but the last, whose output is always tanh.
        in_channels: C of the source.
        out_channels: C' of the output.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        base_channels: int,
        depth: int,
        norm: str = "instance",
        between_blocks: str = "tanh",
        in_channels: int = 1,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        self.divisor = 2**depth
        self.blocks = nn.Sequential(
            *(
                UBlock(
                    out_channels if index else in_channels,
                    out_channels,
                    base_channels=base_channels,
                    depth=depth,
                    norm=norm,
                    output="tanh" if index == num_blocks - 1 else between_blocks,
                )
                for index in range(num_blocks)
            )
        )
        self.apply(initialize)

    def forward(self, source: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), both in [-1, 1].

        Raises:
            ValueError: H or W is not a multiple of `divisor`.
        """
        rows, columns = source.shape[-2:]
        if rows % self.divisor or columns % self.divisor:
            raise ValueError(f"generator: expected sides that are multiples of {self.divisor}; got {rows} x {columns}")
        return self.blocks(source)
