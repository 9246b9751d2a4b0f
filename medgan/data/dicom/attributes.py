"""Builds the attributes of a derived DICOM image, module by module, as plain {keyword: value}.
The writer turns floats into Decimal Strings, lists of dictionaries into sequences. Section numbers are from PS3.3."""

import re
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np

import medgan
from medgan.data.series import SYNTHETIC_LABEL
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import Task

Attributes = dict[str, object]

# Codes of PS3.16: CID 7203 (steps of a derivation; extensible), 7202 (purpose of a source), 7005 (of equipment).
RESAMPLED = ("113085", "Spatial resampling")
BY_NETWORK = ("123110", "Artificial Intelligence")
PROCESSED = ("121322", "Source image for image processing operation")
PROCESSOR = ("109102", "Processing Equipment")


@dataclass(frozen=True)
class ModelFacts:
    """Identifies the model that made the images.

    Attributes:
        version: version in the registry, or empty if not registered.
        digest: SHA-256 of the weights.
    """

    name: str
    version: str
    digest: str

    def __post_init__(self) -> None:
        for field, text in asdict(self).items():
            if not re.fullmatch(r"[ -\[\]-~]{0,56}|[0-9a-f]{64}", text):
                raise InputError("E-DICOM-01", field=field, text=text)

    def __str__(self) -> str:
        return f"{self.name}, version {self.version or 'unregistered'}, weights sha256 {self.digest}"


def series(task: Task, *, series_uid: str, number: int, now: datetime) -> Attributes:
    """Returns General Series (C.7.3.1), the marks of a synthetic image, and the date and time of its making."""
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S.%f")
    return {
        "Modality": task.target.modality,
        "SeriesInstanceUID": series_uid,
        "SeriesNumber": number,
        "Laterality": "",
        "SeriesDescription": f"{SYNTHETIC_LABEL} ({task.target.modality} by medgan)",
        "SyntheticData": "YES",
        "LossyImageCompression": "00",
        "SeriesDate": date,
        "SeriesTime": time,
        "ContentDate": date,
        "ContentTime": time,
        "InstanceCreationDate": date,
        "InstanceCreationTime": time,
    }


def equipment(task: Task, model: ModelFacts) -> Attributes:
    """Returns General Equipment (C.7.5.1) and Contributing Equipment (C.12.1)."""
    made_by: Attributes = {
        "Manufacturer": "medgan",
        "ManufacturerModelName": model.name,
        "SoftwareVersions": [f"medgan {medgan.__version__}", f"model {model.version or 'unregistered'}"],
    }
    contribution = {
        **made_by,
        "PurposeOfReferenceCodeSequence": [_code(PROCESSOR)],
        "ContributionDescription": f"{task.name}: {model}",
    }
    return {**made_by, "ContributingEquipmentSequence": [contribution]}


def pixel_format(pixels: np.ndarray, *, slope: float, intercept: float) -> Attributes:
    """Returns Image Pixel (C.7.6.3) of 16-bit pixels (slices, rows, columns), and their rescaling."""
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[1],
        "Columns": pixels.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }


def plane(volume: Volume, index: int) -> Attributes:
    """Returns Image Plane (C.7.6.2) of one slice; the orientation's first triple points to higher column indices."""
    column_mm, row_mm, slice_mm = volume.spacing_mm
    position = slice_position(volume, index)
    return {
        "InstanceNumber": index + 1,
        "ImagePositionPatient": position.tolist(),
        "ImageOrientationPatient": volume.directions[:, :2].T.ravel().tolist(),
        "PixelSpacing": [row_mm, column_mm],
        "SliceThickness": slice_mm,
        "SpacingBetweenSlices": slice_mm,
        "SliceLocation": float(slice_normal(volume) @ position),
    }


def derivation(
    task: Task, model: ModelFacts, *, sop_class: str, sop_instance: str, frame: int | None = None
) -> Attributes:
    """Returns how the slice was made from one source slice with these UIDs (General Image, C.7.6.1).

    Args:
        frame: number of the source slice in a multi-frame image, from 1 (Image SOP Instance Reference Macro, 10.3).
    """
    return {
        "DerivationDescription": f"Synthetic {task.target.modality} computed from {task.source.modality} "
        f"by the network {model}. Research only, not for diagnosis.",
        "DerivationCodeSequence": [_code(RESAMPLED), _code(BY_NETWORK)],
        "SourceImageSequence": [
            {
                "ReferencedSOPClassUID": sop_class,
                "ReferencedSOPInstanceUID": sop_instance,
                **({"ReferencedFrameNumber": frame} if frame else {}),
                "PurposeOfReferenceCodeSequence": [_code(PROCESSED)],
            }
        ],
    }


def slice_position(volume: Volume, index: int) -> np.ndarray:
    """Returns the center of the slice's first pixel in mm, LPS, (3,)."""
    return (volume.affine @ (0, 0, index, 1))[:3]


def slice_normal(volume: Volume) -> np.ndarray:
    """Returns the unit vector perpendicular to the slices, (3,), by the right-hand rule from columns to rows."""
    return np.cross(volume.directions[:, 0], volume.directions[:, 1])


def _code(code: tuple[str, str]) -> Attributes:
    return {"CodeValue": code[0], "CodingSchemeDesignator": "DCM", "CodeMeaning": code[1]}
