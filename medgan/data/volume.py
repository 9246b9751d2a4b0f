"""Defines the image type between DICOM and the networks: voxels, their place in the patient, and their unit."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from medgan.errors import InputError


@dataclass(frozen=True)
class Volume:
    """Holds a scalar image on a regular grid.

    Attributes:
        array: float32, (slices, rows, columns), in `unit`.
        affine: float64, (4, 4); maps the voxel index (column, row, slice, 1) to millimetres in DICOM's patient
            coordinates (LPS: x to the left, y to the back, z to the head; PS3.3 C.7.6.2.1.1).
        frame_of_reference: Frame of Reference UID that the coordinates belong to.
        unit: "HU", "SUV" or "a.u.".
        notes: choices that reading the image took, for a person.
        made_of: the header's values that the voxels are made of, for messages.
        head: whether the header says that the image shows a head alone.
    """

    array: np.ndarray
    affine: np.ndarray
    frame_of_reference: str
    unit: str
    notes: tuple[str, ...] = ()
    made_of: str = ""
    head: bool = False

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise InputError("E-VOLUME-01", array_shape=self.array.shape)
        if self.affine.shape != (4, 4):
            raise InputError("E-VOLUME-02", affine_shape=self.affine.shape)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Returns the distance between neighboring (columns, rows, slices) in mm."""
        column, row, slice_ = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(column), float(row), float(slice_)

    @property
    def directions(self) -> np.ndarray:
        """Returns the unit vectors of the column, row and slice axes, (3, 3), one in each column of the matrix."""
        return self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)

    def with_array(self, array: np.ndarray, unit: str | None = None) -> Self:
        """Returns a volume at the same place in the patient with other voxels of the same shape."""
        if array.shape != self.array.shape:
            raise InputError("E-VOLUME-03", array_shape=self.array.shape, array_shape_2=array.shape)
        return replace(self, array=array, unit=unit or self.unit)
