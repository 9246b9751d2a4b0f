"""Mirrors and shifts a batch of pairs at random, source and target alike (Isola et al., pix2pix, 6.2)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

LARGEST_SHIFT = 1 / 16
"""This share of an image's side equals about pix2pix's jitter of 286 pixels cropped to 256."""

Pair = tuple[Tensor, Tensor]


def flip(source: Tensor, target: Tensor) -> Pair:
    """Mirrors each pair, (B, C, H, W) and (B, C', H, W), left to right with probability 1/2."""
    mirrored = (torch.rand(len(source), 1, 1, 1) < 0.5).to(source.device)
    return torch.where(mirrored, source.flip(-1), source), torch.where(mirrored, target.flip(-1), target)


def flip_shift(source: Tensor, target: Tensor) -> Pair:
    """Mirrors as `flip` does, and shifts by up to a sixteenth of the sides; new pixels are -1: air, zero activity."""
    source, target = flip(source, target)
    rows, columns = source.shape[-2:]
    margins = int(rows * LARGEST_SHIFT), int(columns * LARGEST_SHIFT)
    places = [torch.randint(2 * margin + 1, (len(source),)).tolist() for margin in margins]
    widths = (margins[1], margins[1], margins[0], margins[0])

    def shifted(images: Tensor) -> Tensor:
        padded = pad(images, widths, value=-1.0)
        views = zip(padded, *places, strict=True)
        return torch.stack([image[:, top : top + rows, left : left + columns] for image, top, left in views])

    return shifted(source), shifted(target)


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor], Pair]] = {
    "none": lambda source, target: (source, target),
    "flip": flip,
    "flip_shift": flip_shift,
}
