"""Find DICOM series in a folder of any layout, and read one into a Volume in physical units."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError

from medgan.data.geometry import Plane, stack_affine
from medgan.data.suv import suv_factor
from medgan.data.volume import Volume
from medgan.errors import InputError

PHANTOM_MODEL = "medgan phantom"
UNITS = {"CT": "HU", "PT": "SUV"}  # every other modality: arbitrary units
_REQUIRED = [
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
]
_OPTIONAL = ["PatientID", "FrameOfReferenceUID", "Modality", "ImageType", "ManufacturerModelName", "CorrectedImage"]


@dataclass(frozen=True)
class Series:
    """The slices of one DICOM series, sorted along the normal of their planes.

    Attributes:
        files: one a slice.
        planes: where each lies, in the same order.
        attenuation_corrected: False only where a PET header says that the correction was not made.
        phantom: the series was written by `medgan phantoms`.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    frame_of_reference: str
    modality: str
    files: tuple[Path, ...]
    planes: tuple[Plane, ...]
    attenuation_corrected: bool = True
    phantom: bool = False

    @property
    def affine(self) -> np.ndarray:
        """float64 (4, 4), see `Volume.affine`; raises InputError where the slices are no regular stack."""
        return stack_affine(self.planes, self.modality)

    def extent_mm(self, direction: np.ndarray) -> tuple[float, float]:
        """The lowest and highest voxel center along the unit vector `direction`."""
        corners = np.concatenate([self.planes[0].corners, self.planes[-1].corners]) @ direction
        return float(corners.min()), float(corners.max())


def find_series(folder: Path) -> list[Series]:
    """Every series of image slices below `folder`, sorted by patient, study and series.

    Files that are no DICOM image slice (reports, DICOMDIR, localizers, text) are passed over; a slice that is
    there twice counts once.

    Raises:
        InputError: the folder is missing or holds no DICOM image slice.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of DICOM files; there is no such folder")
    groups: dict[str, dict[str, tuple[Path, pydicom.Dataset]]] = defaultdict(dict)
    num_others = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        header = _slice_header(path)
        if header is None:
            num_others += 1
        else:
            groups[str(header.SeriesInstanceUID)].setdefault(str(header.SOPInstanceUID), (path, header))
    if not groups:
        raise InputError(f"{folder}: expected DICOM image slices; found none among {num_others} files")
    found = [_sorted_series(list(slices.values())) for slices in groups.values()]
    return sorted(found, key=lambda one: (one.patient_id, one.study_uid, one.series_uid))


def read_volume(series: Series) -> Volume:
    """The voxels of a series in HU (CT), SUV body weight (PT) or arbitrary units (anything else).

    Returns:
        float32 (slices, rows, columns), slices in the order of `series.files`.

    Raises:
        InputError: the slices are no regular stack, cannot be decoded, or their unit is unknown. The message
            names the modality and figures only, so that it may be logged.
    """
    affine = series.affine
    array = np.empty((len(series.files), *series.planes[0].size), np.float32)
    headers = []
    with _tolerant():
        for number, path in enumerate(series.files):
            header = pydicom.dcmread(path)
            array[number] = _rescaled(header, series.modality, number)
            del header.PixelData
            headers.append(header)
    if series.modality == "PT":
        array *= suv_factor(headers)
    return Volume(array, affine, series.frame_of_reference, UNITS.get(series.modality, "a.u."))


def representative_headers(series: Series) -> list[pydicom.Dataset]:
    """The header of every slice without its pixels, in the order of `series.files`."""
    with _tolerant():
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in series.files]


@contextmanager
def _tolerant() -> Iterator[None]:
    """Read what real exports hold: numbers longer than DS allows, unpadded UIDs, odd character sets."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def _slice_header(path: Path) -> pydicom.Dataset | None:
    try:
        with _tolerant():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_REQUIRED + _OPTIONAL)
            complete = all(header.get(tag) for tag in _REQUIRED)
    except (InvalidDicomError, EOFError, ValueError):
        return None
    if "LOCALIZER" in (header.get("ImageType") or ()) or not complete:
        return None
    return header


def _sorted_series(slices: list[tuple[Path, pydicom.Dataset]]) -> Series:
    planes = [(path, _plane(header)) for path, header in slices]
    normal = planes[0][1].normal
    planes.sort(key=lambda item: float(np.dot(item[1].position, normal)))
    header = slices[0][1]
    return Series(
        patient_id=str(header.get("PatientID", "") or ""),
        study_uid=str(header.StudyInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "") or ""),
        modality=str(header.get("Modality", "") or ""),
        files=tuple(path for path, _ in planes),
        planes=tuple(plane for _, plane in planes),
        attenuation_corrected="ATTN" in (header.get("CorrectedImage") or "ATTN"),
        phantom=str(header.get("ManufacturerModelName", "")) == PHANTOM_MODEL,
    )


def _plane(header: pydicom.Dataset) -> Plane:
    return Plane(
        position=tuple(float(value) for value in header.ImagePositionPatient),
        orientation=tuple(float(value) for value in header.ImageOrientationPatient),
        pixel_spacing=tuple(float(value) for value in header.PixelSpacing),
        size=(int(header.Rows), int(header.Columns)),
    )


def _rescaled(header: pydicom.Dataset, modality: str, number: int) -> np.ndarray:
    if modality in UNITS and "RescaleSlope" not in header:
        raise InputError(f"{modality}: slice {number} has no Rescale Slope; {UNITS[modality]} needs it")
    try:
        pixels = header.pixel_array
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        syntax = header.file_meta.get("TransferSyntaxUID", "unknown")
        raise InputError(
            f"{modality}: expected pixels that pydicom can decode; slice {number} has the transfer syntax "
            f"{getattr(syntax, 'name', syntax)} and fails with {type(error).__name__}"
        ) from error
    slope, intercept = float(header.get("RescaleSlope", 1.0)), float(header.get("RescaleIntercept", 0.0))
    return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
