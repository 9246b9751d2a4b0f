"""Describes what a folder holds: series of slices, patients that cannot be used, and files that were passed over."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from medgan.data.dicom.geometry import Plane, stack_affine
from medgan.data.dicom.irregular_stack import RegularGrid, regular_grid
from medgan.errors import InputError
from medgan.tasks import ARBITRARY_UNIT

PHANTOM_MODEL = "medgan phantom"
SYNTHETIC_LABEL = "SYNTHETIC - NOT FOR DIAGNOSIS"
"""This is in the Series Description of every synthetic series, for readers that drop the attribute Synthetic Data."""
UNITS = {"CT": "HU", "PT": "SUV"}
AXES = ("sagittal", "coronal", "axial")
"""Names the plane of slices that follow each other along x, y or z."""
IRREGULAR = ("E-GEOMETRY-02", "E-GEOMETRY-04")
"""These errors say that slices are tilted, or not equally far apart."""


@dataclass(frozen=True)
class Series:
    """Describes the slices of one series, sorted along the normal of their planes.

    Attributes:
        files: file of each slice; it repeats if a file holds many slices.
        frames: the number of each slice in its file, from 0.
        attenuation_corrected: False only where a PET header says that the correction was not made.
        phantom: whether `medgan phantoms` wrote the series.
        synthetic: whether Synthetic Data (0008,001C) or our label says that it was computed; it is no ground truth.
        original: whether Image Type does not say that it was derived from other images, such as a reformat.
        kernel: Convolution Kernel (0018,1210), or empty.
        head: whether Body Part Examined (0018,0015) is the head or a part of it.
        thickness_mm: Slice Thickness (0018,0050); 0 where unknown.
        person: Issuer of Patient ID, birth date and sex, which tell two patients of one Patient ID apart.
        unit_named: whether a NIfTI file's name or sidecar says in which unit the values are.
        slice_axis: which axis of a NIfTI file counts the slices, from 0; -1 for DICOM.
        resampled: whether slices that are no regular stack are resampled onto one.
        notes: how the slices were told from others of their series, and what was mended.
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
    original: bool = True
    kernel: str = ""
    head: bool = False
    thickness_mm: float = 0.0
    person: tuple[str, str, str] = ("", "", "")
    unit_named: bool = False
    slice_axis: int = -1
    resampled: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def affine(self) -> np.ndarray:
        """Returns the affine, float64 (4, 4), see `Volume.affine`; raises InputError for an irregular stack."""
        return self.grid.affine if self.grid else stack_affine(self.planes, self.modality)

    @cached_property
    def grid(self) -> RegularGrid | None:
        """Returns the regular grid that irregular slices are resampled onto; None for slices that stay as they are."""
        if not self.resampled:
            return None
        try:
            stack_affine(self.planes, self.modality)
        except InputError as error:
            return regular_grid(self.planes, self.modality) if error.code in IRREGULAR else None
        return None

    @property
    def axis(self) -> str:
        """Returns the plane that the slices are nearest to: "axial", "coronal" or "sagittal"."""
        return AXES[int(np.abs(self.planes[0].normal).argmax())]

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
    """Says why images of a patient cannot be used; the reason does not name the patient.

    Attributes:
        issuer: Issuer of Patient ID; empty where unknown, and where it is part of the ID already.
        modality: of the images; empty where unknown.
    """

    patient_id: str
    reason: str
    issuer: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Survey:
    """Holds what was found in a folder.

    Attributes:
        series: sorted by patient, study and series.
        problems: images that cannot be used, with their patient.
        passed_over: why a file is not part of a series -> how many files.
        patient_level: which folder below the searched one names the patient of a NIfTI image, from 1; see `find_nifti`.
    """

    series: list[Series]
    problems: list[Problem]
    passed_over: dict[str, int]
    patient_level: int = 1

    @property
    def acquired(self) -> list[Series]:
        """Returns the series that are not synthetic."""
        return [one for one in self.series if not one.synthetic]

    @property
    def synthetic(self) -> list[Series]:
        """Returns the synthetic series."""
        return [one for one in self.series if one.synthetic]
