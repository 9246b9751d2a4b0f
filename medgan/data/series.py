"""What a folder holds: series of slices, patients that cannot be used, and files that were passed over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from medgan.data.dicom.geometry import Plane, stack_affine
from medgan.errors import InputError
from medgan.tasks import ARBITRARY_UNIT

PHANTOM_MODEL = "medgan phantom"
SYNTHETIC_LABEL = "SYNTHETIC - NOT FOR DIAGNOSIS"
"""In the Series Description of every series that a network made, for readers that drop the Synthetic Data attribute."""
UNITS = {"CT": "HU", "PT": "SUV"}


@dataclass(frozen=True)
class Series:
    """The slices of one series, sorted along the normal of their planes.

    Attributes:
        files: one a slice; the same one again where a file holds many slices.
        frames: the number of each slice in its file, from 0.
        planes: where each lies, in the same order.
        attenuation_corrected: False only where a PET header says that the correction was not made.
        phantom: the series was written by `medgan phantoms`.
        synthetic: a network or the like made it, by Synthetic Data (0008,001C) or our label; it is no ground truth.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    frame_of_reference: str
    modality: str
    files: tuple[Path, ...]
    frames: tuple[int, ...]
    planes: tuple[Plane, ...]
    attenuation_corrected: bool = True
    phantom: bool = False
    synthetic: bool = False

    @cached_property
    def affine(self) -> np.ndarray:
        """float64 (4, 4), see `Volume.affine`; raises InputError where the slices are no regular stack."""
        return stack_affine(self.planes, self.modality)

    @property
    def regular(self) -> bool:
        """Whether the slices are a regular stack, and `affine` thus says where they lie."""
        try:
            _ = self.affine
        except InputError:
            return False
        return True

    @property
    def unit(self) -> str:
        """Of the values that `read_volume` gives: "HU", "SUV" or "a.u."."""
        return UNITS.get(self.modality, ARBITRARY_UNIT)

    def extent_mm(self, direction: np.ndarray) -> tuple[float, float]:
        """The lowest and highest voxel center along the unit vector `direction`."""
        corners = np.concatenate([self.planes[0].corners, self.planes[-1].corners]) @ direction
        return float(corners.min()), float(corners.max())


@dataclass(frozen=True)
class Problem:
    """A patient who cannot be used, and why (without naming him)."""

    patient_id: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        series: sorted by patient, study and series.
        problems: images that cannot be used, by their patient.
        passed_over: why a file is not part of a series -> how many files.
    """

    series: list[Series]
    problems: list[Problem]
    passed_over: dict[str, int]

    @property
    def acquired(self) -> list[Series]:
        """The series that are not synthetic."""
        return [one for one in self.series if not one.synthetic]

    @property
    def synthetic(self) -> list[Series]:
        """The others."""
        return [one for one in self.series if one.synthetic]
