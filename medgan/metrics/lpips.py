"""LPIPS 0.1, the distance of two images as a network sees them (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from medgan.errors import InputError

WIDTHS = {"alexnet": (64, 192, 384, 256, 256), "squeezenet": (64, 128, 256, 384, 384, 512, 512)}
"""Channels of each block's features. LPIPS's third network is VGG-16; on VGG-19 its heads mean nothing."""


def lpips(
    output: Tensor, target: Tensor, *, extractor: Callable[[Tensor], Sequence[Tensor]], heads: Sequence[Tensor]
) -> Tensor:
    """Learned perceptual image patch similarity, (B,). Lower is better; 0 for equal images.

    Eq. 1 of the paper: features of unit length over channels, the squared difference weighted channel by channel,
    averaged over the image, summed over blocks. A metric, not a loss: its gradient is NaN where a feature is all zero.

    Args:
        output: (B, 1, H, W) in [-1, 1].
        target: (B, 1, H, W) in [-1, 1].
        extractor: all blocks of alexnet or squeezenet, frozen, trained on ImageNet.
        heads: what `read_heads` read for that network, a (1, C, 1, 1) a block.

    Raises:
        ValueError: the heads are another network's.
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
    """LPIPS's non-negative 1x1 convolutions for alexnet or squeezenet, one (1, C, 1, 1) a block.

    Args:
        path: alex.pth or squeeze.pth of LPIPS 0.1.

    Raises:
        InputError: the file is missing, or is none of these two.
    """
    if not path.is_file():
        raise InputError("E-LPIPS-02", path=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file it cannot read
        raise InputError("E-LPIPS-03", path=path, name=type(error).__name__) from None
    layers = state if isinstance(state, dict) else {}
    came = {name: tuple(getattr(value, "shape", ())) for name, value in layers.items()}
    if came not in [_shapes(widths) for widths in WIDTHS.values()]:
        shown = ", ".join(f"{name} {shape}" for name, shape in list(came.items())[:5])
        raise InputError("E-LPIPS-04", path=path, shown=shown or type(state).__name__)
    for name in came:
        if not (state[name] >= 0).all():
            raise InputError("E-LPIPS-05", path=path, name=name)
    return [state[name] for name in sorted(came)]
