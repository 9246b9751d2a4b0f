"""Makes made-up patients as DICOM datasets or NIfTI images that a test can damage before they are prepared.

The body is an ellipse with fat in front, muscle behind, lungs, a spine, a liver on the right and a lesion: 40 HU and
SUV 1 in most of it, so that a wrong unit, a wrong place and a mirrored image all show.
"""

import copy
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medgan.data.manifest import Manifest, read_manifest
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.data.prepare.split import load_key, patient_hash
from medgan.tasks import TASKS

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
}
HALF_LIFE_S, DOSE_BQ, WEIGHT_KG, WAIT_S = 6586.2, 3.5e8, 70.0, 3600.0  # fluorine-18, scanned after one hour
BQ_PER_SUV = DOSE_BQ * 2 ** (-WAIT_S / HALF_LIFE_S) / (WEIGHT_KG * 1000)
STEP_MM, NUM_SLICES = 10.0, 10
PIXEL_MM, SIDE = {"CT": 8.0, "PT": 10.0, "MR": 8.0}, {"CT": 48, "PT": 40, "MR": 48}
TABLE_MM = 400.0  # where a scanner has the middle of a stack: not at 0
ORIGINAL = ("ORIGINAL", "PRIMARY")


def values(modality, seed, *, num=NUM_SLICES, step_mm=STEP_MM, side=None, pixel_mm=None):
    """Returns HU, SUV or signal, float32 (slices, rows, columns), around the patient's middle."""
    side, pixel_mm = side or SIDE[modality], pixel_mm or PIXEL_MM[modality]
    along = pixel_mm * (np.arange(side) - (side - 1) / 2)
    z, y, x = np.meshgrid(step_mm * (np.arange(num) - (num - 1) / 2), along, along, indexing="ij")
    random = np.random.default_rng(seed)
    left, back, width, depth = random.uniform((-12, -8, 140, 95), (12, 8, 165, 115))
    x, y = x - left, y - back
    inside = (x / width) ** 2 + (y / depth) ** 2 < 1
    image = {name: np.where(inside, value, air) for name, (value, air) in
             {"CT": (40.0, -1000.0), "PT": (1.0, 0.0), "MR": (300.0, 3.0)}.items()}  # fmt: skip
    rim = (x / width) ** 2 + (y / depth) ** 2 > 0.7
    parts = {
        "fat": rim & (y < 0),
        "muscle": rim & (y >= 0),
        "lung": ((x - 0.45 * width) / (0.3 * width)) ** 2 + (y / (0.5 * depth)) ** 2 < 1,
        "short lung": (((x + 0.45 * width) / (0.3 * width)) ** 2 + (y / (0.5 * depth)) ** 2 < 1) & (z > 0),
        "liver": (((x + 0.45 * width) / (0.35 * width)) ** 2 + (y / (0.55 * depth)) ** 2 < 1) & (z <= 0),
        "spine": x**2 + (y - 0.7 * depth) ** 2 < 20**2,
        "lesion": (x - 0.2 * width) ** 2 + (y + 0.65 * depth) ** 2 + (z - 20) ** 2 < 24**2,
    }
    looks = {
        "fat": (-100, 0.3, 900), "muscle": (55, 1.0, 380), "lung": (-800, 0.4, 30), "short lung": (-800, 0.4, 30),
        "liver": (110, 2.2, 500), "spine": (700, 1.4, 150), "lesion": (60, 6.0, 700),
    }  # fmt: skip
    for name, mask in parts.items():
        for modality_, value in zip(image, looks[name], strict=True):
            image[modality_][mask & inside] = value
    return image[modality].astype(np.float32)


def header(modality, patient, study, frame, series, number):
    """Returns a dataset with all that slices of a series share."""
    one, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, one.file_meta = ExplicitVRLittleEndian, meta
    one.SOPClassUID = SOP_CLASSES[modality]
    one.PatientName, one.PatientID, one.PatientSex, one.PatientBirthDate = "Doe^Jane", patient, "F", ""
    one.PatientWeight, one.StudyInstanceUID, one.SeriesInstanceUID = WEIGHT_KG, study, series
    one.FrameOfReferenceUID, one.Modality, one.SeriesNumber, one.Manufacturer = frame, modality, number, "SIEMENS"
    one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = "20200101"
    one.StudyTime = one.SeriesTime = one.AcquisitionTime = one.ContentTime = "100000"
    one.ImageType = [*ORIGINAL, {"CT": "AXIAL", "MR": "M", "PT": "STATIC"}[modality]]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [PIXEL_MM[modality]] * 2
    one.SliceThickness = STEP_MM
    if modality == "CT":
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
    if modality == "PT":
        one.RescaleSlope, one.RescaleIntercept, one.Units, one.DecayCorrection = 1, 0, "BQML", "START"
        one.CorrectedImage, one.FrameReferenceTime = ["DECY", "ATTN", "SCAT"], 0
        one.ActualFrameDuration = 180000
        dose = Dataset()
        dose.RadiopharmaceuticalStartTime, dose.RadionuclideTotalDose = "090000", DOSE_BQ
        dose.RadionuclideHalfLife = HALF_LIFE_S
        one.RadiopharmaceuticalInformationSequence = [dose]
    return one


def slices(modality, patient, study, frame, *, seed=0, number=2, num=NUM_SLICES, step_mm=STEP_MM, bq=BQ_PER_SUV):
    """Returns the datasets of one series, from feet to head."""
    shared = header(modality, patient, study, frame, generate_uid(), number)
    shared.SliceThickness = step_mm
    image = values(modality, seed, num=num, step_mm=step_mm) * (bq if modality == "PT" else 1)
    corner = -PIXEL_MM[modality] * (SIDE[modality] - 1) / 2
    made = []
    for index, pixels in enumerate(image):
        one = copy.deepcopy(shared)
        one.SOPInstanceUID, one.InstanceNumber = generate_uid(), index + 1
        one.ImagePositionPatient = [corner, corner, step_mm * (index - (num - 1) / 2)]
        one.Rows, one.Columns = pixels.shape
        stored = pixels + 1024 if modality == "CT" else pixels
        one.PixelData = np.rint(stored).astype("<i2").tobytes()
        one["PixelData"].VR = "OW"
        made.append(one)
    return made


def patient(name, *, seed=0, **more):
    """Returns CT and PET of one patient, of one study and frame of reference."""
    study, frame = generate_uid(), generate_uid()
    return slices("CT", name, study, frame, seed=seed, **more), slices("PT", name, study, frame, seed=seed, **more)


def save(datasets, folder, *, first=0):
    """Writes datasets as files that are numbered from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(datasets, start=first):
        one.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def nifti(modality, seed=0, *, scale=1.0):
    """Returns a NIfTI image of the same body (RAS)."""
    array = values(modality, seed) * np.float32(scale)
    step = PIXEL_MM[modality]
    affine = np.diag([step, step, STEP_MM, 1.0])
    affine[:3, 3] = [
        -(count - 1) / 2 * size for count, size in zip(array.shape[::-1], np.diag(affine)[:3], strict=True)
    ]
    affine[2, 3] += TABLE_MM
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0)[::-1, ::-1], affine)  # x to the right, y to the front
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def put(image, path):
    """Writes a NIfTI image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


class Outcome(NamedTuple):
    """What became of one patient: the reason why he was set aside, or medians of his numbers and the notes."""

    reason: str = ""
    suv: float = np.nan
    hu: float = np.nan
    slices: int = 0
    notes: str = ""
    source: np.ndarray | None = None
    target: np.ndarray | None = None


def prepared(folder, *, size=32, task="pet2ct", processes=1, **settings) -> tuple[Manifest, dict[str, Outcome]]:
    """Prepares a folder; returns the manifest and the outcome of every patient by hash."""
    settings = {"most_broken": 1.0} | settings
    place = folder.parent / f"{folder.name} prepared"
    out = prepare(PrepareRequest(folder, TASKS[task], size, place, settings, processes=processes))
    manifest = read_manifest(out)
    outcomes = {}
    for line in manifest.set_aside:
        patient_, reason = line.removeprefix("patient ").split(" set aside: ", 1)
        outcomes[patient_] = Outcome(reason)
    for one in manifest.patients:
        outcomes[one.hash] = _measured(out / one.folder, one)
    return manifest, outcomes


def hashed(folder, name) -> str:
    """Returns the hash of a patient of a folder that was prepared."""
    return patient_hash(name, load_key(folder.parent / f"{folder.name} prepared"))


def _measured(folder: Path, one) -> Outcome:
    mask = np.load(folder / "mask.npy")
    source, target = (getattr(one, side).physical(np.load(folder / f"{side}.npy")) for side in ("source", "target"))
    notes = "; ".join(one.notes)
    return Outcome(
        "", float(np.median(source[mask])), float(np.median(target[mask])), one.slices, notes, source, target
    )
