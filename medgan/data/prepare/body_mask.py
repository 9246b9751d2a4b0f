"""Finds the patient's body in an image."""

import numpy as np
from scipy import ndimage

from medgan.tasks import ARBITRARY_UNIT, Image

MASK_RULE = "threshold; without plates thinner than 10 mm (couch, headrest) in CT; holes filled; large parts"
"""This is how `dataset.json` records the rule; metrics inside of masks of two rules cannot be compared."""
PLATE_MM = 10.0  # the top of a couch and a headrest are thinner, and no part of a trunk or limb is
LARGE_PART = 0.25  # of the largest part: both legs are body where no slice shows them joined
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
        above: threshold in the unit of the values; 0.1 for a PET in SUV.

    Returns:
        bool, (slices, rows, columns); all False where no voxel is brighter.
    """
    bright = values > above
    body = np.zeros_like(bright)
    for box in ndimage.find_objects(bright.view(np.uint8)):  # at most one box, around all bright voxels
        body[box] = _large_parts(_without_holes(bright[box]), 1.0)
    return body


def body_mask_of_ct(hu: np.ndarray, above: float, *, spacing_mm: float) -> np.ndarray:
    """Returns the body in a CT, without the couch and the headrest, which may touch it.

    Plates are told by their thickness: an opening in each slice removes them, what is left of the body then grows back
    into the bright voxels next to it. A hole, such as a lung, belongs to the body if most of its border does; the foam
    between the shells of a couch does not.

    Args:
        hu: (slices, rows, columns).
        above: threshold in HU; -300.
        spacing_mm: distance between pixels.

    Returns:
        bool, (slices, rows, columns); all False where no voxel is brighter.
    """
    bright = hu > above
    body = np.zeros_like(bright)
    reach = round(PLATE_MM / 2 / spacing_mm)
    for box in ndimage.find_objects(bright.view(np.uint8)):
        part = bright[box]
        body[box] = _without_plates(part, reach) if reach else _large_parts(_without_holes(part), LARGE_PART)
    return body


def _without_plates(bright: np.ndarray, reach: int) -> np.ndarray:
    core = _large_parts(_spread(~_spread(~bright, reach), reach), LARGE_PART)
    if not core.any():
        return _large_parts(_without_holes(bright), LARGE_PART)
    grown = _spread(core, reach) & bright
    body = grown | _holes_within(bright, grown)
    return body | (_spread(body, reach) & bright)


def _holes_within(bright: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Returns the holes of the bright voxels, slice by slice, that have half of their border or more on the body."""
    regions, outside = _dark_regions(bright)
    places = np.flatnonzero(~outside[regions])
    numbers = regions.ravel()[places]
    lengths, on_body = np.zeros(len(outside)), np.zeros(len(outside))
    for step in (1, -1, bright.shape[2], -bright.shape[2]):  # no hole touches the border of its slice
        beside = places + step
        lengths += np.bincount(numbers, bright.ravel()[beside], len(outside))
        on_body += np.bincount(numbers, body.ravel()[beside], len(outside))
    holes = np.zeros(bright.size, bool)
    holes[places] = (2 * on_body >= lengths)[numbers]
    return holes.reshape(bright.shape)


def _spread(mask: np.ndarray, reach: int) -> np.ndarray:
    """Returns the mask and what is within `reach` rows and columns of it, slice by slice."""
    for axis in (1, 2):
        lines, spread = np.swapaxes(mask, 0, axis), mask.copy()
        wider = np.swapaxes(spread, 0, axis)
        for step in range(1, reach + 1):
            wider[step:] |= lines[:-step]
            wider[:-step] |= lines[step:]
        mask = spread
    return mask


def _large_parts(mask: np.ndarray, share: float) -> np.ndarray:
    """Returns the connected parts that have this share of the largest part's voxels, or more."""
    parts, num_parts = ndimage.label(mask)
    if num_parts <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the background
    if share == 1.0:
        return parts == sizes.argmax()
    return (sizes >= share * sizes.max())[parts]


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """Fills regions that do not reach the border of their slice; many times as fast as a loop over the slices."""
    regions, outside = _dark_regions(mask)
    return ~(outside & (np.arange(len(outside)) > 0))[regions]


def _dark_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each voxel's region outside of a mask, by number, slice by slice, and which regions reach the border.

    The mask has the number 0, and counts as a region that reaches the border.
    """
    regions, num_regions = ndimage.label(~mask, structure=IN_PLANE)
    outside = np.zeros(num_regions + 1, bool)
    for edge in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        outside[edge] = True
    outside[0] = True
    return regions, outside
