"""Computes LPIPS 0.1, the distance of two images in the features of a network (Zhang et al., CVPR 2018)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from medgan.errors import InputError

WIDTHS = {"alexnet": (64, 192, 384, 256, 256), "squeezenet": (64, 128, 256, 384, 384, 512, 512)}
"""These are the channels of each block's features. LPIPS's third network is VGG-16; its heads do not fit VGG-19."""


def lpips(
    output: Tensor, target: Tensor, *, extractor: Callable[[Tensor], Sequence[Tensor]], heads: Sequence[Tensor]
) -> Tensor:
    """Returns the learned perceptual image patch similarity, (B,). Lower is better; 0 for equal images.

    Eq. 1 of the paper: features get unit length over channels; squared differences are weighted by channel, averaged
    over the image and summed over blocks. It is no loss: its gradient is NaN where all channels of a feature are 0.

    Args:
        output, target: (B, 1, H, W) in [-1, 1].
        extractor: network with all blocks of alexnet or squeezenet, frozen, trained on ImageNet.
        heads: result of `read_heads` for that network, one (1, C, 1, 1) a block.

    Raises:
        InputError: the heads belong to another network.
    """
    pairs = list(zip(extractor(output), extractor(target), strict=True))
    features, weights = [mine.shape[1] for mine, _ in pairs], [head.shape[1] for head in heads]
    if features != weights:
        raise InputError("E-LPIPS-01", features=features, weights=weights)
    total = output.new_zeros(len(output))
    for (mine, theirs), head in zip(pairs, heads, strict=True):
        difference = (_unit(mine) - _unit(theirs)).square() * head.to(mine)
        total = total + difference.sum(dim=1).mean(dim=(1, 2))
    return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _shapes(widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    return {f"lin{block}.model.1.weight": (1, width, 1, 1) for block, width in enumerate(widths)}


def read_heads(path: Path) -> list[Tensor]:
    """Reads LPIPS's non-negative 1x1 convolutions for alexnet or squeezenet, one (1, C, 1, 1) a block.

    Args:
        path: path of alex.pth or squeeze.pth of LPIPS 0.1.

    Raises:
        InputError: the file is missing or is neither of these two.
    """
    if not path.is_file():
        raise InputError("E-LPIPS-02", path=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file it cannot read
        raise InputError("E-LPIPS-03", path=path, name=type(error).__name__) from None
    layers = state if isinstance(state, dict) else {}
    found = {name: tuple(getattr(value, "shape", ())) for name, value in layers.items()}
    if found not in map(_shapes, WIDTHS.values()):
        first = ", ".join(f"{name} {shape}" for name, shape in list(found.items())[:5])
        raise InputError("E-LPIPS-04", path=path, shown=first or type(state).__name__)
    for name in found:
        if not (state[name] >= 0).all():
            raise InputError("E-LPIPS-05", path=path, name=name)
    return [state[name] for name in sorted(found)]
