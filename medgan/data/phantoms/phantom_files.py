"""Writes phantom volumes as DICOM series, with the same bytes for the same phantom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from medgan.data.dicom.writer import encoded
from medgan.data.series import PHANTOM_MODEL
from medgan.data.volume import Volume

HALF_LIFE_S = 6586.2  # fluorine-18
DATE, SCAN_TIME, INJECTION_TIME = "20200101", "100000", "090000"
UPTAKE_S = 3600.0  # from injection to scan
DOSE_BQ = 3.5e8
MODALITIES = {"HU": "CT", "SUV": "PT", "a.u.": "MR"}


def write_phantom(
    folder: Path, number: int, volumes: Sequence[Volume], *, place: Sequence[str], body_part: str
) -> None:
    """Writes one phantom's series, each to a folder named after its modality.

    Args:
        body_part: Body Part Examined (0018,0015).
        volumes: a CT in HU, a PET in SUV, an MR image in arbitrary units, or several of these.
        place: texts that identify these volumes; unique identifiers are made from them.
    """
    weight_kg = 60 + 3 * (number % 10)
    for volume in volumes:
        modality = MODALITIES[volume.unit]
        attributes = {
            **_patient(number, weight_kg), **_of_modality(modality, len(volume.array)), "BodyPartExamined": body_part,
        }  # fmt: skip
        if modality == "PT":
            volume = volume.with_array(volume.array * np.float32(_bq_per_suv(weight_kg)))
        _write_series(folder / modality, volume, place, attributes)


def _bq_per_suv(weight_kg: float) -> float:
    return DOSE_BQ * 2 ** (-UPTAKE_S / HALF_LIFE_S) / (weight_kg * 1000)


def _of_modality(modality: str, num_slices: int) -> dict[str, Any]:
    if modality == "PT":
        return _pet_attributes(num_slices)
    return _ct_attributes() if modality == "CT" else _mr_attributes()


def _write_series(folder: Path, volume: Volume, place: Sequence[str], attributes: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = attributes["SOPClassUID"]
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    header.StudyInstanceUID = generate_uid(entropy_srcs=[*place, "study"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[*place, "frame"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[*place, header.Modality])
    for index, image in enumerate(volume.array):
        header.SOPInstanceUID = generate_uid(entropy_srcs=[*place, header.Modality, str(index)])
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        _set_plane(header, volume, index)
        _set_pixels(header, image)
        (folder / f"{index + 1:04d}.dcm").write_bytes(encoded(header))


def _set_plane(header: Dataset, volume: Volume, index: int) -> None:
    position = volume.affine @ [0, 0, index, 1]
    header.InstanceNumber = index + 1
    header.ImagePositionPatient = [_ds(value) for value in position[:3]]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [_ds(volume.spacing_mm[1]), _ds(volume.spacing_mm[0])]
    header.SliceThickness = _ds(volume.spacing_mm[2])
    if header.Modality == "PT":
        header.ImageIndex = index + 1


def _set_pixels(header: Dataset, image: np.ndarray) -> None:
    """Stores CT as unsigned numbers from -1024 HU on, PET signed with a slope for every slice, MR as it is."""
    intercept = -1024.0 if header.Modality == "CT" else 0.0
    slope = _ds(max(float(image.max()), 1.0) / 32767 if header.Modality == "PT" else 1.0)
    if header.Modality != "MR":  # the MR Image Module has no rescaling
        header.RescaleSlope, header.RescaleIntercept = slope, _ds(intercept)
    stored = np.rint((image - intercept) / float(slope)).clip(0, 32767).astype("<u2")
    header.Rows, header.Columns = image.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = int(header.Modality == "PT")
    header.PixelData = stored.tobytes()
    header["PixelData"].VR = "OW"


def _patient(number: int, weight_kg: float) -> dict[str, Any]:
    """Returns the patient, study and equipment modules."""
    return {
        "PatientName": f"Phantom^{number:04d}", "PatientID": f"PHANTOM-{number:04d}", "PatientBirthDate": "",
        "PatientSex": "O", "PatientWeight": weight_kg, "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "computed phantom, no person", "StudyDate": DATE, "StudyTime": SCAN_TIME,
        "StudyID": str(number), "AccessionNumber": "", "ReferringPhysicianName": "",
        "StudyDescription": "medgan phantom", "Manufacturer": "medgan", "ManufacturerModelName": PHANTOM_MODEL,
        "PositionReferenceIndicator": "", "PatientPosition": "HFS", "SeriesDate": DATE, "SeriesTime": SCAN_TIME,
        "AcquisitionDate": DATE, "AcquisitionTime": SCAN_TIME, "ContentDate": DATE, "ContentTime": SCAN_TIME,
        "BurnedInAnnotation": "NO",
    }  # fmt: skip


def _ct_attributes() -> dict[str, Any]:
    return {
        "SOPClassUID": CTImageStorage, "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesNumber": 1, "SeriesDescription": "medgan phantom CT", "KVP": 120, "AcquisitionNumber": 1,
        "RescaleType": "HU",
    }  # fmt: skip


def _mr_attributes() -> dict[str, Any]:
    """Returns the attributes of a T1-weighted spin echo; phase is encoded along the columns, front to back."""
    return {
        "SOPClassUID": MRImageStorage, "Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
        "SeriesNumber": 1, "SeriesDescription": "medgan phantom MR", "AcquisitionNumber": 1, "ScanningSequence": "SE",
        "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D", "RepetitionTime": 550, "EchoTime": 12,
        "EchoTrainLength": 1, "MagneticFieldStrength": 1.5, "FlipAngle": 90, "InPlanePhaseEncodingDirection": "COL",
    }  # fmt: skip


def _pet_attributes(num_slices: int) -> dict[str, Any]:
    nuclide = Dataset()
    nuclide.RadiopharmaceuticalStartTime = INJECTION_TIME
    nuclide.RadionuclideTotalDose = _ds(DOSE_BQ)
    nuclide.RadionuclideHalfLife = _ds(HALF_LIFE_S)
    nuclide.RadionuclideCodeSequence = []
    return {
        "SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT", "ImageType": ["ORIGINAL", "PRIMARY"],
        "SeriesNumber": 2, "SeriesDescription": "medgan phantom PET", "SeriesType": ["STATIC", "IMAGE"],
        "Units": "BQML", "CountsSource": "EMISSION", "DecayCorrection": "START", "CollimatorType": "RING",
        "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "DCAL", "NORM"], "NumberOfSlices": num_slices,
        "FrameReferenceTime": 0, "ActualFrameDuration": 180000, "EnergyWindowRangeSequence": [],
        "PatientOrientationCodeSequence": [], "PatientGantryRelationshipCodeSequence": [],
        "RadiopharmaceuticalInformationSequence": [nuclide],
    }  # fmt: skip


def _ds(value: float) -> str:
    return format_number_as_ds(float(value))
