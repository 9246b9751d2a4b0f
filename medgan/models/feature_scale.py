"""Brings the features of every extractor to one scale: that of VGG-19 with the weights of Oxford.

The paper's loss weights, 1e-4, belong to features of that size. Content goes with the square of the features, and style
with their fourth power: on smaller features, as of networks trained on [0, 1], the same weights do next to nothing.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

Scale = Literal["oxford", "as_is"]
SIZE = 64
OXFORD = (164.3, 245.0, 957.0, 1448.0, 38.8)
"""Gives the root mean square of Oxford's features of the reference image, for each block of VGG-19.

Blocks 1 to 3 are measured. For blocks 4 and 5, whose weights were not at hand, Chen and Koltun (Photographic Image
Synthesis with Cascaded Refinement Networks, 2017) tell the proportions: with the same weights they found mean
differences of 2.6, 4.8, 3.7, 5.6 and 0.15, so block 4 has 5.6/3.7 and block 5 has 0.15/3.7 of block 3. A deeper block
of another network is taken for block 5.
"""
SAME = 0.01
"""Weights whose first factors differ from 1 by less are Oxford's: their deeper blocks, too, stay as they are."""
DIGITS = 4


class ScaledFeatures(nn.Module):
    """Multiplies the features of each block of an extractor by a constant.

    Args:
        extractor: frozen network that maps (B, 1, H, W) in [-1, 1] to a tensor of features a block.
        factors: the constants, one a block, from shallow to deep.
    """

    def __init__(self, extractor: nn.Module, factors: tuple[float, ...]) -> None:
        super().__init__()
        self.extractor, self.factors = extractor, factors

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 1, H, W) in [-1, 1] to the scaled features of each block, from shallow to deep."""
        blocks = self.extractor(image)
        return tuple(block * factor for block, factor in zip(blocks, self.factors, strict=True))


def scaled(extractor: nn.Module, scale: Scale) -> nn.Module:
    """Returns the extractor with the features that `extractor.scale` asks for.

    Args:
        extractor: frozen network with all blocks that the losses need.
        scale: "oxford": features of the size that the paper's loss weights expect; "as_is": unchanged.
    """
    return ScaledFeatures(extractor, oxford_factors(extractor)).eval() if scale == "oxford" else extractor


@torch.no_grad()
def oxford_factors(extractor: nn.Module) -> tuple[float, ...]:
    """Returns the constant of each block that brings its features of the reference image to the scale of Oxford's.

    The constants depend on the network and its weights alone; they are rounded, so that every worker has the same.
    """
    exact = copy.deepcopy(extractor).double()
    device = next(exact.parameters()).device
    blocks = exact(reference_image().to(device))
    if device.type == "meta":  # shapes alone
        return (1.0,) * len(blocks)
    sizes = [float(block.square().mean().sqrt()) for block in blocks]
    wanted = [OXFORD[min(block, len(OXFORD) - 1)] for block in range(len(sizes))]
    factors = [float(f"{goal / size:.{DIGITS}g}") for goal, size in zip(wanted, sizes, strict=True)]
    if all(abs(factor - 1) < SAME for factor in factors[:2]):
        return (1.0,) * len(factors)
    return tuple(factors)


def reference_image() -> Tensor:
    """Returns the image, (1, 1, 64, 64) in [-1, 1], whose features are measured: a disc with texture and two spots."""
    axis = torch.linspace(-1, 1, SIZE, dtype=torch.float64, device="cpu")
    row, column = axis[:, None], axis[None, :]
    texture = 1 + 0.15 * torch.sin(25 * column) * torch.sin(19 * row)
    body = torch.sigmoid(20 * (0.8 - torch.hypot(column, row))) * texture
    bright = 0.7 * torch.sigmoid(30 * (0.15 - torch.hypot(column - 0.3, row + 0.2)))
    dark = 0.8 * torch.sigmoid(30 * (0.25 - torch.hypot(column + 0.3, row - 0.1)))
    return (body + bright - dark - 1).clamp(-1, 1)[None, None]
