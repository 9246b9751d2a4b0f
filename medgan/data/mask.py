"""The patient's body in a CT."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BODY_ABOVE_HU = -300.0


def body_mask(hu: np.ndarray) -> np.ndarray:
    """Voxels of the body: above -300 HU, holes filled slice by slice, the largest connected part.

    Args:
        hu: (slices, rows, columns), in HU.

    Returns:
        bool, (slices, rows, columns); nothing is set where no voxel is above -300 HU.
    """
    dense = hu > BODY_ABOVE_HU
    filled = np.stack([ndimage.binary_fill_holes(image) for image in dense])
    parts, num_parts = ndimage.label(filled)
    if num_parts <= 1:
        return filled
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the outside
    return parts == sizes.argmax()
