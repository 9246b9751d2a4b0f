"""PET/CT phantoms as real DICOM series, to try everything without a patient."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds
from scipy import ndimage

from medgan.data.anatomy import ANATOMIES, NAMES, TISSUES, draw
from medgan.data.series import PHANTOM_MODEL
from medgan.data.volume import Volume
from medgan.errors import InputError

CT_FIELD_MM, CT_STEP_MM = 352.0, 4.0
PET_PIXEL_MM, PET_STEP_MM, PET_SIZE = 6.0, 4.25, 60
PET_BLUR_MM = 3.0  # standard deviation of the scanner's point spread: 7 mm at half maximum
HALF_LIFE_S = 6586.2  # fluorine-18
DATE, SCAN_TIME, INJECTION_TIME = "20200101", "100000", "090000"
UPTAKE_S = 3600.0  # from injection to scan
COMPLETE = "phantoms.json"


def write_phantoms(folder: Path, *, patients: int = 12, slices: int = 20, matrix: int = 128, seed: int = 0) -> Path:
    """Write made-up patients (heads, thoraxes, pelves and thighs in turn), each a CT and a PET series.

    The same arguments give the same bytes. Where the folder holds these phantoms already, nothing is done.

    Args:
        folder: where to; made in one go, so that it is never seen half written.
        patients: how many.
        slices: CT slices a patient, 4 mm apart; the PET has its own, 4.25 mm apart.
        matrix: CT pixels along a side of 352 mm.
        seed: of all that is random.

    Returns:
        `folder`.

    Raises:
        InputError: a count is too small, or the folder holds something else.
    """
    for name, value, least in (("patients", patients, 1), ("slices", slices, 2), ("matrix", matrix, 16)):
        if value < least:
            raise InputError(f"phantoms: expected {name} of at least {least}, got {value}")
    made = json.dumps({"patients": patients, "slices": slices, "matrix": matrix, "seed": seed})
    if folder.is_dir() and any(folder.iterdir()):
        complete = folder / COMPLETE
        if complete.is_file() and complete.read_text() == made:
            return folder
        raise InputError(f"{folder}: expected no folder, an empty one or the same phantoms; it holds something else")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for number in range(1, patients + 1):
            _write_patient(part / f"PHANTOM-{number:04d}", number, slices=slices, matrix=matrix, seed=seed)
        (part / COMPLETE).write_text(made)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def phantom_volumes(number: int, *, slices: int, matrix: int, seed: int) -> tuple[Volume, Volume]:
    """The CT (HU) and PET (SUV) of one phantom, before rounding to DICOM pixels."""
    random = np.random.default_rng([seed, number])
    pixel_mm = CT_FIELD_MM / matrix
    ct_affine = _centered_affine(pixel_mm, CT_STEP_MM, (slices, matrix, matrix))
    points = _points(ct_affine, (slices, matrix, matrix))
    kind = list(ANATOMIES)[(number - 1) % len(ANATOMIES)]
    labels = draw(kind, points, random)
    hu = np.array([TISSUES[name].hu for name in NAMES], np.float32)[labels]
    suv = np.array([TISSUES[name].suv for name in NAMES], np.float32)[labels]
    texture = ndimage.gaussian_filter(60 * random.standard_normal(hu.shape, np.float32), (1, 2, 2))
    hu = ndimage.gaussian_filter(hu, (0, 0.5, 0.5)) + texture + 9 * random.standard_normal(hu.shape, np.float32)
    ct = Volume(hu.clip(-1000, 1500), ct_affine, "", "HU")
    return ct, _pet(suv, ct, random)


def _pet(suv: np.ndarray, ct: Volume, random: np.random.Generator) -> Volume:
    """What a scanner sees of the uptake: on its own grid, blurred and noisy."""
    num = int(np.floor((len(suv) - 1) * CT_STEP_MM / PET_STEP_MM)) + 1
    affine = _centered_affine(PET_PIXEL_MM, PET_STEP_MM, (num, PET_SIZE, PET_SIZE))
    affine[:3, 3] += (1.7, -2.3, 0.37)
    blurred = ndimage.gaussian_filter(suv, PET_BLUR_MM / np.array(ct.spacing_mm)[::-1])
    x, y, z = _points(affine, (num, PET_SIZE, PET_SIZE))
    origin, spacing = ct.affine[:3, 3], ct.spacing_mm
    places = [(z - origin[2]) / spacing[2], (y - origin[1]) / spacing[1], (x - origin[0]) / spacing[0]]
    seen = ndimage.map_coordinates(blurred, places, order=1, mode="nearest")
    noise = ndimage.gaussian_filter(random.normal(0, 1, seen.shape), (0, 0.6, 0.6)) * (0.01 + 0.12 * np.sqrt(seen))
    return Volume((seen + noise).clip(0).astype(np.float32), affine, "", "SUV")


def _centered_affine(pixel_mm: float, step_mm: float, shape: tuple[int, int, int]) -> np.ndarray:
    affine = np.diag([pixel_mm, pixel_mm, step_mm, 1.0])
    affine[:3, 3] = [-(count - 1) / 2 * step for count, step in zip(shape[::-1], np.diag(affine)[:3], strict=True)]
    return affine


def _points(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z in mm of every voxel of an axial grid, each of the given shape."""
    axes = [affine[axis, 3] + affine[axis, axis] * np.arange(count) for axis, count in enumerate(shape[::-1])]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return x, y, z


def _write_patient(folder: Path, number: int, *, slices: int, matrix: int, seed: int) -> None:
    ct, pet = phantom_volumes(number, slices=slices, matrix=matrix, seed=seed)
    place = ["medgan phantom", *(str(value) for value in (number, slices, matrix, seed))]
    weight_kg, dose_bq = 60 + 3 * (number % 10), 3.5e8
    bq_per_suv = dose_bq * 2 ** (-UPTAKE_S / HALF_LIFE_S) / (weight_kg * 1000)
    _write_series(folder / "CT", ct, place, {**_patient(number, weight_kg), **_ct_attributes()})
    activity = pet.with_array(pet.array * np.float32(bq_per_suv))
    _write_series(folder / "PT", activity, place, {**_patient(number, weight_kg), **_pet_attributes(pet, dose_bq)})


def _write_series(folder: Path, volume: Volume, place: list[str], attributes: dict[str, Any]) -> None:
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
        _set_pixels(header, image, signed=header.Modality == "PT")
        header.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def _set_plane(header: Dataset, volume: Volume, index: int) -> None:
    position = volume.affine @ [0, 0, index, 1]
    header.InstanceNumber = index + 1
    header.ImagePositionPatient = [_ds(value) for value in position[:3]]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [_ds(volume.spacing_mm[1]), _ds(volume.spacing_mm[0])]
    header.SliceThickness = _ds(volume.spacing_mm[2])
    if header.Modality == "PT":
        header.ImageIndex = index + 1


def _set_pixels(header: Dataset, image: np.ndarray, *, signed: bool) -> None:
    """CT as unsigned numbers from -1024 HU on, PET signed with a slope for every slice, as scanners do."""
    intercept = 0.0 if signed else -1024.0
    slope = _ds(max(float(image.max()), 1.0) / 32767) if signed else _ds(1.0)
    header.RescaleSlope, header.RescaleIntercept = slope, _ds(intercept)
    stored = np.rint((image - intercept) / float(slope)).clip(0, 32767).astype("<u2")
    header.Rows, header.Columns = image.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = int(signed)
    header.PixelData = stored.tobytes()
    header["PixelData"].VR = "OW"


def _patient(number: int, weight_kg: float) -> dict[str, Any]:
    """Patient, study and equipment modules."""
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


def _pet_attributes(pet: Volume, dose_bq: float) -> dict[str, Any]:
    nuclide = Dataset()
    nuclide.RadiopharmaceuticalStartTime = INJECTION_TIME
    nuclide.RadionuclideTotalDose = _ds(dose_bq)
    nuclide.RadionuclideHalfLife = _ds(HALF_LIFE_S)
    nuclide.RadionuclideCodeSequence = []
    return {
        "SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT", "ImageType": ["ORIGINAL", "PRIMARY"],
        "SeriesNumber": 2, "SeriesDescription": "medgan phantom PET", "SeriesType": ["STATIC", "IMAGE"],
        "Units": "BQML", "CountsSource": "EMISSION", "DecayCorrection": "START", "CollimatorType": "RING",
        "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "DCAL", "NORM"], "NumberOfSlices": len(pet.array),
        "FrameReferenceTime": 0, "ActualFrameDuration": 180000, "EnergyWindowRangeSequence": [],
        "PatientOrientationCodeSequence": [], "PatientGantryRelationshipCodeSequence": [],
        "RadiopharmaceuticalInformationSequence": [nuclide],
    }  # fmt: skip


def _ds(value: float) -> str:
    return format_number_as_ds(float(value))
