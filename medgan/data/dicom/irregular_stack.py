"""Resamples slices of variable spacing, with gaps, or of a tilted gantry onto a regular grid, by physical position."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medgan.data.dicom.geometry import (
    PLACE_TOLERANCE_MM,
    SAME_PLACE_MM,
    SHIFT_TOLERANCE,
    Plane,
    check_same,
    plane_affine,
)
from medgan.errors import InputError

STEEPEST = 1.0  # mm in-plane for each mm along the normal: 45 degrees
WIDEST_GAP = 3  # slice spacings: two missing slices are filled, a gap between two stations is not


@dataclass(frozen=True)
class RegularGrid:
    """Describes the regular grid that takes the place of an irregular stack of slices.

    Attributes:
        affine: float64 (4, 4), see `Volume.affine`.
        places: where the slices of the stack lie along the normal, in units of the grid's slices.
        shifts: how far each slice of the stack lies from the grid's first pixel, (slices, 2): rows, columns.
        shape: (slices, rows, columns) of the grid.
    """

    affine: np.ndarray
    places: np.ndarray
    shifts: np.ndarray
    shape: tuple[int, int, int]


def regular_grid(planes: tuple[Plane, ...], modality: str) -> RegularGrid:
    """Returns the grid with the planes' pixels and their median spacing that covers all slices.

    Args:
        planes: sorted along their normal.

    Raises:
        InputError: the slices differ in size, pixel spacing or orientation, two are at the same place, or a gap
            between them is too wide.
    """
    if len(planes) < 2:
        raise InputError("E-GEOMETRY-01", modality=modality, num_planes=len(planes))
    check_same(planes, modality)
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    along = positions @ first.normal
    gaps = np.diff(along)
    if gaps.min() <= SAME_PLACE_MM:
        raise InputError("E-GEOMETRY-03", modality=modality, most=2)
    step = float(np.median(gaps))
    if gaps.max() > WIDEST_GAP * step:
        raise InputError("E-GEOMETRY-08", modality=modality, gap_mm=gaps.max(), step_mm=step)
    axes = np.stack([first.orientation[3:], first.orientation[:3]])  # along rising rows, columns
    shifts = (positions - positions[0]) @ axes.T / first.pixel_spacing
    _refuse_loose(along, shifts, first, modality)
    lowest = np.floor(shifts.min(axis=0) + 1e-3)
    size = np.asarray(first.size) + np.ceil(shifts.max(axis=0) - lowest - 1e-3)
    origin = positions[0] + (lowest * first.pixel_spacing) @ axes
    num_slices = int((along[-1] - along[0]) / step + 1e-3) + 1
    return RegularGrid(
        affine=plane_affine(first, step * first.normal, origin),
        places=(along - along[0]) / step,
        shifts=shifts - lowest,
        shape=(num_slices, int(size[0]), int(size[1])),
    )


def _refuse_loose(along: np.ndarray, shifts: np.ndarray, plane: Plane, modality: str) -> None:
    """Raises InputError where the shifts in-plane do not grow with the place, as those of a tilted gantry do."""
    centered = along - along.mean()
    slope = centered @ shifts / (centered @ centered)
    off = (shifts - shifts.mean(axis=0) - np.outer(centered, slope)) * plane.pixel_spacing
    off_mm = float(np.linalg.norm(off, axis=1).max())
    if (
        off_mm > max(PLACE_TOLERANCE_MM, SHIFT_TOLERANCE * min(plane.pixel_spacing))
        or np.abs(slope).max() * min(plane.pixel_spacing) > STEEPEST
    ):
        raise InputError("E-GEOMETRY-09", modality=modality, off_mm=max(off_mm, float(np.abs(shifts).max())))


def on_grid(array: np.ndarray, grid: RegularGrid, background: float) -> np.ndarray:
    """Returns the values of an irregular stack on its regular grid, linearly interpolated.

    Args:
        array: float32, (slices, rows, columns), sorted as the planes were.
        background: value where no slice reaches.
    """
    canvas = np.full((len(array), *grid.shape[1:]), background, np.float32)
    for place, image, (row, column) in zip(canvas, array, grid.shifts, strict=True):
        if row == column == 0:
            place[: image.shape[0], : image.shape[1]] = image
        else:
            padded = np.pad(image, [(0, have - want) for have, want in zip(place.shape, image.shape, strict=True)],
                            constant_values=background)  # fmt: skip
            ndimage.shift(padded, (row, column), output=place, order=1, cval=background)
    result = np.empty(grid.shape, np.float32)
    for number in range(grid.shape[0]):
        after = min(int(np.searchsorted(grid.places, number)), len(canvas) - 1)
        before = max(after - 1, 0)
        distance = grid.places[after] - grid.places[before]
        weight = np.float32(np.clip((number - grid.places[before]) / distance, 0, 1) if distance else 1.0)
        result[number] = (1 - weight) * canvas[before] + weight * canvas[after]
    return result
