"""Brings the features of every extractor to one scale: that of VGG-19 with the weights of Oxford.

The paper's loss weights, 1e-4, belong to features of that size. Content goes with the square of the features, and style
with their fourth power: on smaller features, as of networks trained on [0, 1], the same weights do next to nothing.
"""

import copy
import math
from collections import defaultdict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from medgan.errors import InputError
from medgan.losses.content import content_loss
from medgan.losses.style import style_loss

Scale = Literal["oxford", "as_is"]
SIZE, COARSE = 64, 8
OXFORD = (7.9125, 8.8613, 40.645, 61.52, 1.648)
"""Gives the size of Oxford's features, for each block of VGG-19; see `sizes_of`.

Blocks 1 to 3 are measured. For blocks 4 and 5, whose weights were not at hand, Chen and Koltun (Photographic Image
Synthesis with Cascaded Refinement Networks, 2017) tell the proportions: with the same weights they found mean
differences of 2.6, 4.8, 3.7, 5.6 and 0.15, so block 4 has 5.6/3.7 and block 5 has 0.15/3.7 of block 3. A deeper block
of another network is taken for block 5.
"""
TERMS = {style_loss: 4, content_loss: 2}
"""Maps each term on features to the power of the features that its gradient goes with."""
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


def oxford_factors(extractor: nn.Module) -> tuple[float, ...]:
    """Returns the constant of each block that brings its features to the size of Oxford's; see `sizes_of`.

    The constants depend on the network and its weights alone; they are rounded, so that every worker has the same.
    """
    sizes = sizes_of(extractor)
    wanted = [OXFORD[min(block, len(OXFORD) - 1)] for block in range(len(sizes))]
    factors = [float(f"{goal / size:.{DIGITS}g}") for goal, size in zip(wanted, sizes, strict=True)]
    if all(abs(factor - 1) < SAME for factor in factors[:2]):
        return (1.0,) * len(factors)
    return tuple(factors)


def sizes_of(extractor: nn.Module) -> list[float]:
    """Returns the size of the features of each block, which a constant on the features multiplies.

    It is the geometric mean of the gradients of style and content at an image in the place of the reference image, the
    power of the features taken out: the mean over a gray image, as an untrained generator makes it, and a blurred one.
    Two extractors with blocks of one size give the two terms together the same gradient; what one term has too much,
    the other has too little. The mean square of the features knows nothing of their correlation, which makes the style
    term of a small network a hundred times as strong.

    Raises:
        InputError: a block does not change with the image, or its features are not finite.
    """
    exact = copy.deepcopy(extractor).double()
    device = next(exact.parameters()).device
    target = reference_image().to(device)
    wanted = exact(target)
    if device.type == "meta":  # shapes alone
        return [OXFORD[min(block, len(OXFORD) - 1)] for block in range(len(wanted))]
    logs: dict[int, float] = defaultdict(float)
    images = (_gray(target), _blurred(target))
    for image in images:
        with torch.enable_grad():
            blocks = exact(image.requires_grad_())
            for number, (block, other) in enumerate(zip(blocks, wanted, strict=True)):
                for term in TERMS:
                    (gradient,) = torch.autograd.grad(term([block], [other.detach()]), image, retain_graph=True)
                    norm = float(gradient.norm())
                    if not 0 < norm < math.inf:
                        raise InputError("E-FEATURES-05", block=number + 1, norm=norm)
                    logs[number] += math.log(norm)
    return [math.exp(logs[number] / (len(images) * sum(TERMS.values()))) for number in range(len(wanted))]


def reference_image() -> Tensor:
    """Returns the image, (1, 1, 64, 64) in [-1, 1], whose features are measured: a disc with texture and two spots."""
    axis = torch.linspace(-1, 1, SIZE, dtype=torch.float64, device="cpu")
    row, column = axis[:, None], axis[None, :]
    texture = 1 + 0.15 * torch.sin(25 * column) * torch.sin(19 * row)
    body = torch.sigmoid(20 * (0.8 - torch.hypot(column, row))) * texture
    bright = 0.7 * torch.sigmoid(30 * (0.15 - torch.hypot(column - 0.3, row + 0.2)))
    dark = 0.8 * torch.sigmoid(30 * (0.25 - torch.hypot(column + 0.3, row - 0.1)))
    return (body + bright - dark - 1).clamp(-1, 1)[None, None]


def _gray(image: Tensor) -> Tensor:
    """Returns a flat image with a slight ripple, of the same shape."""
    return 0.05 * torch.sin(1.7 * torch.arange(SIZE, dtype=image.dtype, device=image.device)).expand_as(image)


def _blurred(image: Tensor) -> Tensor:
    """Returns the image without its details."""
    return interpolate(avg_pool2d(image, COARSE), size=SIZE, mode="bilinear", align_corners=False)
