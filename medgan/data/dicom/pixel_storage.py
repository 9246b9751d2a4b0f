"""Defines how DICOM stores each target modality, one row each; the rest of a derived series is the same for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from medgan.errors import InputError
from medgan.tasks import ARBITRARY_UNIT


@dataclass(frozen=True)
class Storage:
    """Holds what is particular to the derived images of one modality.

    Attributes:
        sop_class: SOP Class UID (PS3.4 B.5).
        image_type: Image Type (0008,0008).
        unit: the unit that the stored values have after rescaling.
        stored_type: numpy type of the pixels, `uint16` or `int16`.
        scaling: function from the values to (slope, intercept): value = slope * stored + intercept.
        attributes: further attributes of the modality's own modules, by keyword.
        copied: attributes that an image takes over from a source of the same modality if the source has them.
        never: attributes of a source of another modality that this one must not have.
        number_of_slices, slice_index: keywords of the number of slices, and of the position of each slice, from 1.
    """

    sop_class: str
    image_type: tuple[str, ...]
    unit: str
    stored_type: str
    scaling: Callable[[np.ndarray], tuple[float, float]]
    attributes: Mapping[str, object]
    copied: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    number_of_slices: str = ""
    slice_index: str = ""


def _ct_scaling(_values: np.ndarray) -> tuple[float, float]:
    """Returns a slope of 1/16 HU over the usual 12-bit range: whole HU are exact, no error is above 1/32 HU."""
    return 1 / 16, -1024.0


def _pet_scaling(values: np.ndarray) -> tuple[float, float]:
    """Returns the slope of 32,767 steps up to the largest absolute value; PET's intercept is always 0 (C.8.9.4.1.1)."""
    return max(float(np.abs(values).max()), 1e-6) / 32767, 0.0


def _mr_scaling(values: np.ndarray) -> tuple[float, float]:
    """Returns the slope and intercept that spread all 65,536 stored numbers from the smallest to the largest value."""
    low, high = float(values.min()), float(values.max())
    return (high - low) / 65535 or 1.0, low


STORAGE = {
    # CT Image IOD, PS3.3 A.3; CT Image Module, C.8.2.1. Type 2 attributes of a scanner are empty.
    "CT": Storage(
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        image_type=("DERIVED", "SECONDARY", "AXIAL"),
        unit="HU",
        stored_type="uint16",
        scaling=_ct_scaling,
        attributes={
            "RescaleType": "HU",
            "WindowCenter": 40,
            "WindowWidth": 400,
            "KVP": None,
            "AcquisitionNumber": None,
        },
    ),
    # MR Image IOD, A.4; MR Image Module, C.8.3.1: Research Mode stands for what no scanner's sequence made.
    "MR": Storage(
        sop_class="1.2.840.10008.5.1.4.1.1.4",
        image_type=("DERIVED", "SECONDARY", "OTHER"),
        unit=ARBITRARY_UNIT,
        stored_type="uint16",
        scaling=_mr_scaling,
        attributes={
            "RescaleType": "US",
            "ScanningSequence": "RM",
            "SequenceVariant": "NONE",
            "ScanOptions": None,
            "MRAcquisitionType": None,
            "RepetitionTime": None,
            "EchoTime": None,
            "EchoTrainLength": None,
        },
    ),
    # PET Image IOD, A.21; PET Series, Isotope and Image Modules, C.8.9.
    "PT": Storage(
        sop_class="1.2.840.10008.5.1.4.1.1.128",
        image_type=("DERIVED", "PRIMARY"),  # PET allows no other second value (C.8.9.4.1.4)
        unit="SUV",
        stored_type="int16",
        scaling=_pet_scaling,
        attributes={
            "RescaleType": "SUV",
            "Units": "GML",
            "SUVType": "BW",
            "CountsSource": "EMISSION",
            "SeriesType": ["STATIC", "IMAGE"],
            "CorrectedImage": None,
            "DecayCorrection": "START",
            "CollimatorType": None,
            "AcquisitionDate": None,
            "AcquisitionTime": None,
            "ActualFrameDuration": None,
            "FrameReferenceTime": 0,
            "RadiopharmaceuticalInformationSequence": [],
            "DecayFactor": 1,
            "PatientOrientationCodeSequence": [],
            "PatientGantryRelationshipCodeSequence": [],
        },
        copied=(
            "CorrectedImage",
            "DecayCorrection",
            "CollimatorType",
            "AcquisitionDate",
            "AcquisitionTime",
            "ActualFrameDuration",
            "FrameReferenceTime",
            "DecayFactor",
        ),
        never=("PatientPosition",),  # the codes of the Patient Orientation Module take its place
        number_of_slices="NumberOfSlices",
        slice_index="ImageIndex",
    ),
}


def storage_for(modality: str) -> Storage:
    """Returns the row of a modality; raises InputError if there is none."""
    if modality not in STORAGE:
        raise InputError("E-WRITE-01", storage=", ".join(sorted(STORAGE)), modality=modality)
    return STORAGE[modality]


def stored_values(values: np.ndarray, storage: Storage) -> tuple[np.ndarray, float, float]:
    """Returns the pixels to store, with the slope and intercept that turn them back into values.

    Args:
        values: any shape, in `storage.unit`.

    Raises:
        InputError: a value is not finite, or outside what the stored type can hold.
    """
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise InputError("E-WRITE-02", bad=bad, values_size=values.size)
    slope, intercept = storage.scaling(values)
    limits = np.iinfo(storage.stored_type)
    pixels = np.rint((values.astype(np.float64) - intercept) / slope)
    if pixels.min() < limits.min or pixels.max() > limits.max:
        low, high = limits.min * slope + intercept, limits.max * slope + intercept
        raise InputError("E-WRITE-03", low=low, high=high, unit=storage.unit, lowest=values.min(), highest=values.max())
    return pixels.astype(storage.stored_type), slope, intercept
