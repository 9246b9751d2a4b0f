"""The patient's body in an image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgan.tasks import ARBITRARY_UNIT, Image

IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
"""Neighbors of a voxel within its slice."""


def body_threshold(image: Image, window: tuple[float, float]) -> float:
    """What is brighter is body, in the image's unit; `window` is the volume's own."""
    if image.unit != ARBITRARY_UNIT:
        return image.body_above
    low, high = window
    return low + image.body_above * (high - low)


def body_mask(values: np.ndarray, above: float) -> np.ndarray:
    """Voxels of the body: brighter than `above`, holes filled slice by slice, the largest connected part.

    Args:
        values: (slices, rows, columns).
        above: in the unit of the values; -300 for a CT in HU.

    Returns:
        bool, (slices, rows, columns); nothing is set where no voxel is brighter.
    """
    bright = values > above
    body = np.zeros_like(bright)
    for box in ndimage.find_objects(bright.view(np.uint8)):  # one at most; there is no body outside of it
        body[box] = _largest(_without_holes(bright[box]))
    return body


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, num_parts = ndimage.label(mask)
    if num_parts <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the outside
    return parts == sizes.argmax()


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """What the border of its slice cannot be reached from is filled; many times as fast as filling slice by slice."""
    regions, num_regions = ndimage.label(~mask, structure=IN_PLANE)
    outside = np.zeros(num_regions + 1, bool)
    for edge in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        outside[edge] = True
    outside[0] = False  # the mask itself
    return ~outside[regions]
