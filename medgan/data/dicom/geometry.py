"""Computes where a stack of DICOM slices lies in the patient (PS3.3 C.7.6.2.1.1)."""

from typing import NamedTuple

import numpy as np

from medgan.errors import InputError

PLACE_TOLERANCE_MM = 0.1  # positions rounded to 0.1 mm are at most half as far from their places
PLACE_TOLERANCE = 0.05  # share of the slice spacing
SHIFT_TOLERANCE = 0.25  # share of the pixel spacing
SAME_PLACE_MM = 1e-3
SPACING_TOLERANCE = 1e-3  # share of the pixel spacing
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
        InputError: the slices differ in size, pixel spacing or orientation, two are at the same place, one is away from
            its place on the regular grid that fits best, or they are not stacked along their normal (a tilted gantry).
    """
    if len(planes) < 2:
        raise InputError("E-GEOMETRY-01", modality=modality, num_planes=len(planes))
    check_same(planes, modality)
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    places = positions @ first.normal
    step, start = _fitted(places, modality)
    in_plane = positions - np.outer(places, first.normal)
    middle = in_plane.mean(axis=0)
    shift_mm = float(np.linalg.norm(in_plane - middle, axis=1).max())
    if shift_mm > max(PLACE_TOLERANCE_MM, SHIFT_TOLERANCE * min(first.pixel_spacing)):
        neighbors_mm = float(np.linalg.norm(np.diff(in_plane, axis=0), axis=1).max())
        raise InputError("E-GEOMETRY-02", modality=modality, shift_mm=neighbors_mm)
    return plane_affine(first, step * first.normal, middle + start * first.normal)


def plane_affine(plane: Plane, slice_vector: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Returns the affine, float64 (4, 4), of slices with the plane's pixels; its columns are in mm, LPS."""
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(plane.orientation[:3], plane.pixel_spacing[1])
    affine[:3, 1] = np.multiply(plane.orientation[3:], plane.pixel_spacing[0])
    affine[:3, 2] = slice_vector
    affine[:3, 3] = origin
    return affine


def _fitted(places: np.ndarray, modality: str) -> tuple[float, float]:
    """Returns the step and the start of the regular grid nearest to places in mm along the normal, in rising order."""
    gaps = np.diff(places)
    apart = np.concatenate([[0], np.cumsum(gaps > SAME_PLACE_MM)])
    most = int(np.bincount(apart).max())
    if most > 1:
        raise InputError("E-GEOMETRY-03", modality=modality, most=most)
    numbers = np.arange(len(places)) - (len(places) - 1) / 2
    middle, step = float(places.mean()), float(numbers @ places / (numbers @ numbers))
    off_mm = float(np.abs(places - middle - step * numbers).max())
    if off_mm <= max(PLACE_TOLERANCE_MM, PLACE_TOLERANCE * step):
        return step, middle + step * float(numbers[0])
    skipped = np.rint(gaps / gaps.min()) - 1
    missing = int(skipped.sum())
    hint = ""
    if missing < len(gaps) and np.abs(gaps / gaps.min() - 1 - skipped).max() <= PLACE_TOLERANCE:
        hint = "; a slice seems to be missing" if missing == 1 else f"; {missing} slices seem to be missing"
    raise InputError(
        "E-GEOMETRY-04", modality=modality, lowest=gaps.min(), highest=gaps.max(), off_mm=off_mm, hint=hint
    )


def check_same(planes: tuple[Plane, ...], modality: str) -> None:
    """Raises InputError where planes differ in size, pixel spacing or orientation."""
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
    spacings, orientations = (np.array([plane[place] for plane in planes]) for place in (2, 1))
    off = np.abs(spacings / spacings[0] - 1).max(axis=1)
    if off.max() > SPACING_TOLERANCE:
        other = planes[int(off.argmax())].pixel_spacing
        raise InputError("E-GEOMETRY-06", modality=modality, pixel_spacing=first.pixel_spacing, pixel_spacing_2=other)
    off = np.abs(orientations - orientations[0]).max(axis=1)
    if off.max() > ANGLE_TOLERANCE:
        turned = planes[int(off.argmax())].orientation
        raise InputError("E-GEOMETRY-07", modality=modality, orientation=first.orientation, orientation_2=turned)
