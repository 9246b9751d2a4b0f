"""Describes what a folder holds: series of slices, patients that cannot be used, and files that were passed over."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from medgan.data.dicom.geometry import Plane, stack_affine
from medgan.errors import InputError
from medgan.tasks import ARBITRARY_UNIT

PHANTOM_MODEL = "medgan phantom"
SYNTHETIC_LABEL = "SYNTHETIC - NOT FOR DIAGNOSIS"
"""This is in the Series Description of every synthetic series, for readers that drop the attribute Synthetic Data."""
UNITS = {"CT": "HU", "PT": "SUV"}


@dataclass(frozen=True)
class Series:
    """Describes the slices of one series, sorted along the normal of their planes.

    Attributes:
        files: file of each slice; it repeats if a file holds many slices.
        frames: the number of each slice in its file, from 0.
        attenuation_corrected: False only where a PET header says that the correction was not made.
        phantom: whether `medgan phantoms` wrote the series.
        synthetic: whether Synthetic Data (0008,001C) or our label says that it was computed; it is no ground truth.
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
        """Returns the affine, float64 (4, 4), see `Volume.affine`; raises InputError for an irregular stack."""
        return stack_affine(self.planes, self.modality)

    @property
    def regular(self) -> bool:
        """Returns whether the slices are a regular stack, so that `affine` says where they lie."""
        try:
            _ = self.affine
        except InputError:
            return False
        return True

    @property
    def unit(self) -> str:
        """Returns the unit of the values that `read_volume` gives: "HU", "SUV" or "a.u."."""
        return UNITS.get(self.modality, ARBITRARY_UNIT)

    def extent_mm(self, direction: np.ndarray) -> tuple[float, float]:
        """Returns the lowest and highest voxel center along the unit vector `direction`."""
        corners = np.concatenate([self.planes[0].corners, self.planes[-1].corners]) @ direction
        return float(corners.min()), float(corners.max())


@dataclass(frozen=True)
class Problem:
    """Says why a patient cannot be used; the reason does not name the patient."""

    patient_id: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """Holds what was found in a folder.

    Attributes:
        series: sorted by patient, study and series.
        problems: images that cannot be used, with their patient.
        passed_over: why a file is not part of a series -> how many files.
    """

    series: list[Series]
    problems: list[Problem]
    passed_over: dict[str, int]

    @property
    def acquired(self) -> list[Series]:
        """Returns the series that are not synthetic."""
        return [one for one in self.series if not one.synthetic]

    @property
    def synthetic(self) -> list[Series]:
        """Returns the synthetic series."""
        return [one for one in self.series if one.synthetic]
