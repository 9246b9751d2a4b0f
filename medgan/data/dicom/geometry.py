"""Computes where a stack of DICOM slices lies in the patient (PS3.3 C.7.6.2.1.1)."""

from typing import NamedTuple

import numpy as np

from medgan.errors import InputError

SPACING_TOLERANCE = 0.01  # share of the slice spacing
SAME_PLACE_MM = 1e-3
ANGLE_TOLERANCE = 1e-3  # difference in a direction's component


class Plane(NamedTuple):
    """Describes where one slice lies.

    Attributes:
        position: (x, y, z) of the first pixel's center in mm (Image Position (Patient)).
        orientation: direction of increasing column, then of increasing row (Image Orientation (Patient)).
        pixel_spacing: mm between rows, then between columns (Pixel Spacing).
        size: (rows, columns).
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    size: tuple[int, int]

    @property
    def normal(self) -> np.ndarray:
        """Returns the unit vector perpendicular to the slice, (3,)."""
        vector = np.cross(self.orientation[:3], self.orientation[3:])
        return vector / np.linalg.norm(vector)

    @property
    def corners(self) -> np.ndarray:
        """Returns the centers of the four corner pixels in mm, (4, 3)."""
        along_columns = np.multiply(self.orientation[:3], self.pixel_spacing[1] * (self.size[1] - 1))
        along_rows = np.multiply(self.orientation[3:], self.pixel_spacing[0] * (self.size[0] - 1))
        origin = np.asarray(self.position)
        return origin + np.stack([0 * along_columns, along_columns, along_rows, along_columns + along_rows])


def stack_affine(planes: tuple[Plane, ...], modality: str) -> np.ndarray:
    """Returns the affine of slices that are sorted along their normal.

    Returns:
        float64 (4, 4): voxel index (column, row, slice, 1) to mm, LPS.

    Raises:
        InputError: the slices differ in size, pixel spacing or orientation, two are at the same place, their spacing
            varies by more than 1 %, or they are not stacked along their normal (a tilted gantry).
    """
    if len(planes) < 2:
        raise InputError("E-GEOMETRY-01", modality=modality, num_planes=len(planes))
    _check_same(planes, modality)
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    step = _step(positions @ first.normal, modality)
    steps = np.diff(positions, axis=0)
    shift_mm = float(np.linalg.norm(steps - np.outer(steps @ first.normal, first.normal), axis=1).max())
    if shift_mm > SPACING_TOLERANCE * step:
        raise InputError("E-GEOMETRY-02", modality=modality, shift_mm=shift_mm)
    slice_vector = (positions[-1] - positions[0]) / (len(planes) - 1)
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.orientation[:3], first.pixel_spacing[1])
    affine[:3, 1] = np.multiply(first.orientation[3:], first.pixel_spacing[0])
    affine[:3, 2] = slice_vector @ first.normal * first.normal
    affine[:3, 3] = positions[0]
    return affine


def _step(places: np.ndarray, modality: str) -> float:
    """Returns the one distance in mm between slices, from their places along their normal, in rising order."""
    gaps = np.diff(places)
    apart = np.concatenate([[0], np.cumsum(gaps > SAME_PLACE_MM)])
    most = int(np.bincount(apart).max())
    if most > 1:
        raise InputError("E-GEOMETRY-03", modality=modality, most=most)
    step = float(np.median(gaps))
    if np.abs(gaps - step).max() <= SPACING_TOLERANCE * step:
        return step
    skipped = np.rint(gaps / gaps.min()) - 1
    missing = int(skipped.sum())
    hint = ""
    if missing < len(gaps) and np.abs(gaps / gaps.min() - 1 - skipped).max() <= SPACING_TOLERANCE:
        hint = "; a slice seems to be missing" if missing == 1 else f"; {missing} slices seem to be missing"
    raise InputError(
        "E-GEOMETRY-04",
        modality=modality,
        lowest=gaps.min(),
        highest=gaps.max(),
        spacing_tolerance=SPACING_TOLERANCE,
        hint=hint,
    )


def _check_same(planes: tuple[Plane, ...], modality: str) -> None:
    first = planes[0]
    for plane in planes:
        if plane.size != first.size:
            raise InputError(
                "E-GEOMETRY-05",
                modality=modality,
                first_size=first.size[0],
                first_size_2=first.size[1],
                plane_size=plane.size[0],
                plane_size_2=plane.size[1],
            )
        if not np.allclose(plane.pixel_spacing, first.pixel_spacing, rtol=1e-3):
            raise InputError(
                "E-GEOMETRY-06",
                modality=modality,
                pixel_spacing=first.pixel_spacing,
                pixel_spacing_2=plane.pixel_spacing,
            )
        if not np.allclose(plane.orientation, first.orientation, atol=ANGLE_TOLERANCE):
            raise InputError(
                "E-GEOMETRY-07", modality=modality, orientation=first.orientation, orientation_2=plane.orientation
            )
