"""Finds the patient's body in an image."""

import numpy as np
from scipy import ndimage

from medgan.tasks import ARBITRARY_UNIT, Image

IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
"""Marks the neighbors of a voxel within its slice."""


def body_threshold(image: Image, window: tuple[float, float]) -> float:
    """Returns the value above which a voxel is body, in the image's unit; `window` is the window of the volume."""
    if image.unit != ARBITRARY_UNIT:
        return image.body_above
    low, high = window
    return low + image.body_above * (high - low)


def body_mask(values: np.ndarray, above: float) -> np.ndarray:
    """Returns the body: voxels brighter than `above`, holes filled slice by slice, then the largest connected part.

    Args:
        above: threshold in the unit of the values; -300 for a CT in HU.

    Returns:
        bool, (slices, rows, columns); all False where no voxel is brighter.
    """
    bright = values > above
    body = np.zeros_like(bright)
    for box in ndimage.find_objects(bright.view(np.uint8)):  # at most one box, around all bright voxels
        body[box] = _largest(_without_holes(bright[box]))
    return body


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, num_parts = ndimage.label(mask)
    if num_parts <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the background
    return parts == sizes.argmax()


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """Fills regions that do not reach the border of their slice; many times as fast as a loop over the slices."""
    regions, num_regions = ndimage.label(~mask, structure=IN_PLANE)
    outside = np.zeros(num_regions + 1, bool)
    for edge in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        outside[edge] = True
    outside[0] = False  # label 0 is the mask itself
    return ~outside[regions]
