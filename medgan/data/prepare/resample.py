"""Brings volumes onto one in-plane grid by physical position: nothing is stretched, slices stay where they are."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from medgan.data.volume import Volume
from medgan.errors import InputError


@dataclass(frozen=True)
class Grid:
    """Describes where the voxels of a resampled volume lie.

    Attributes:
        affine: float64 (4, 4), as in `Volume`.
        shape: (slices, rows, columns).
        frame_of_reference: Frame of Reference UID; "" where it is unknown.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    frame_of_reference: str


def grid_of(volume: Volume) -> Grid:
    """Returns the grid of a volume."""
    slices, rows, columns = volume.array.shape
    return Grid(volume.affine, (slices, rows, columns), volume.frame_of_reference)


def in_plane_grid(volume: Volume, *, spacing_mm: float, size: int) -> Grid:
    """Returns the grid of the volume's slices with `size` x `size` pixels of `spacing_mm` about its in-plane center."""
    slices, rows, columns = volume.array.shape
    affine = volume.affine.copy()
    affine[:3, :2] = volume.directions[:, :2] * spacing_mm
    center = volume.affine @ [(columns - 1) / 2, (rows - 1) / 2, 0, 1]
    half = (size - 1) / 2
    affine[:3, 3] = center[:3] - affine[:3, 0] * half - affine[:3, 1] * half
    return Grid(affine, (slices, size, size), volume.frame_of_reference)


def resample(volume: Volume, grid: Grid, background: float) -> Volume:
    """Returns the volume's values at the grid's voxel centers, linearly interpolated.

    Where the grid is coarser in-plane, a Gaussian of scikit-image's width, (factor - 1) / 2 pixels, is applied
    in-plane first, so that fine structure does not alias.

    Args:
        background: value outside the volume's field of view, in its unit; may be NaN.

    Returns:
        float32 on the grid; `volume` itself where the grid is the volume's own.

    Raises:
        InputError: volume and grid belong to different frames of reference.
    """
    if volume.frame_of_reference and grid.frame_of_reference and volume.frame_of_reference != grid.frame_of_reference:
        raise InputError("E-RESAMPLE-01")
    if volume.array.shape == grid.shape and np.allclose(volume.affine, grid.affine, rtol=0, atol=1e-6):
        return volume
    filter_ = sitk.ResampleImageFilter()
    filter_.SetInterpolator(sitk.sitkLinear)
    filter_.SetDefaultPixelValue(background)
    filter_.SetSize(grid.shape[::-1])
    origin, spacing, direction = _placement(grid.affine)
    filter_.SetOutputOrigin(origin)
    filter_.SetOutputSpacing(spacing)
    filter_.SetOutputDirection(direction)
    array = sitk.GetArrayFromImage(filter_.Execute(_image(_smoothed(volume, grid), volume.affine)))
    return Volume(array, grid.affine, volume.frame_of_reference or grid.frame_of_reference, volume.unit)


def _smoothed(volume: Volume, grid: Grid) -> np.ndarray:
    """Smooths in-plane against aliasing; changes nothing where the grid is as fine as the volume."""
    steps_mm = np.linalg.norm(grid.affine[:3, :2], axis=0)
    column_factor, row_factor = steps_mm / volume.spacing_mm[:2]
    sigmas = [0.0, max(0.0, (row_factor - 1) / 2), max(0.0, (column_factor - 1) / 2)]
    if not any(sigmas):
        return volume.array
    return ndimage.gaussian_filter(volume.array, sigmas, mode="nearest")


def _image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array, np.float32))
    origin, spacing, direction = _placement(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


def _placement(affine: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return affine[:3, 3].tolist(), spacing.tolist(), (affine[:3, :3] / spacing).ravel().tolist()
