"""Builds CasNet, MedGAN's generator: a chain of U-blocks (Armanious et al., section 2.2)."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medgan.errors import InputError
from medgan.models.layers import initialize, require_sides
from medgan.models.refinegan import ResidualUBlock
from medgan.models.ublock import UBlock
from medgan.models.unet import DoubleUBlock

BLOCKS = {"u": UBlock, "residual": ResidualUBlock, "double": DoubleUBlock}
MOST_BLOCKS = 8


class CasNet(nn.Module):
    """Chains blocks: the output image of one block is the input of the next.

    Args:
        num_blocks: number of blocks, 1 to 8; six in the paper.
        base_channels: width of each block's first encoder layer; 64 in the paper.
        depth: number of encoder layers of a block; eight in the paper, at 256 x 256.
        norm: "instance", "batch" or "none".
        between_blocks: activation after each block but the last, "tanh" or "none"; tanh always follows the last.
        block: "u" (as in the paper), "residual" (RefineGAN) or "double" (U-Net, double convolutions).
        dropout: probability of dropout in training, in each block's first three decoder layers; 0 for none.
        block_input: "previous", or "previous_and_source": each block but the first also gets the source.
        gives: "image" (as in the paper), or "change": the output is added to the source, for targets of the same kind.
        recompute: "none", or "blocks": in training, activations within a block are computed again for the gradient
            and not stored. The result is the same. Batch norm is refused: it would count every image twice.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        base_channels: int,
        depth: int,
        norm: str = "instance",
        between_blocks: str = "tanh",
        block: str = "u",
        dropout: float = 0.0,
        block_input: str = "previous",
        gives: str = "image",
        recompute: str = "none",
        in_channels: int = 1,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        if not 1 <= num_blocks <= MOST_BLOCKS:
            raise InputError("E-NETWORK-01", most_blocks=MOST_BLOCKS, num_blocks=num_blocks)
        if block not in BLOCKS:
            raise InputError("E-NETWORK-02", blocks=", ".join(BLOCKS), block=block)
        added_channels = {"previous": 0, "previous_and_source": in_channels}
        if block_input not in added_channels:
            raise InputError("E-NETWORK-03", block_input=block_input)
        if gives not in ("image", "change"):
            raise InputError("E-NETWORK-04", gives=gives)
        if gives == "change" and in_channels != out_channels:
            raise InputError("E-NETWORK-05", in_channels=in_channels, out_channels=out_channels)
        if recompute not in ("none", "blocks"):
            raise InputError("E-NETWORK-06", recompute=recompute)
        if recompute == "blocks" and norm == "batch":
            raise InputError("E-NETWORK-07", norm=norm)
        self.divisor = 2**depth
        self.gives = gives
        self.recompute = recompute
        self.block_input = block_input
        entering = [in_channels, *[out_channels + added_channels[block_input]] * (num_blocks - 1)]
        activations = [*[between_blocks] * (num_blocks - 1), "tanh"]
        self.blocks = nn.ModuleList(
            BLOCKS[block](
                channels,
                out_channels,
                base_channels=base_channels,
                depth=depth,
                norm=norm,
                dropout=dropout,
                output=activation,
            )
            for channels, activation in zip(entering, activations, strict=True)
        )
        self.apply(initialize)

    def forward(self, source: Tensor, every_block: bool = False) -> Tensor | tuple[Tensor, ...]:
        """Maps (B, C, H, W) to (B, C', H, W), both in [-1, 1].

        Args:
            every_block: whether to return a tuple of every block's output; the last one is the network's output.

        Raises:
            InputError: H or W is not a multiple of `divisor`.
        """
        require_sides(source, self.divisor)
        recompute = self.recompute == "blocks" and self.training and torch.is_grad_enabled()
        outputs: list[Tensor] = []
        for block in self.blocks:
            if not outputs:
                image = source
            elif self.block_input == "previous_and_source":
                image = torch.cat([outputs[-1], source], dim=1)
            else:
                image = outputs[-1]
            outputs.append(checkpoint(block, image, use_reentrant=False) if recompute else block(image))
        if self.gives == "change":
            outputs[-1] = (source + outputs[-1]).clamp(-1.0, 1.0)
        return tuple(outputs) if every_block else outputs[-1]
