"""Writes a translated volume as a derived DICOM series that says on every slice that it is synthetic."""

import copy
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds, validate_value

from medgan.data.atomic_write import appearing
from medgan.data.dicom import attributes as modules
from medgan.data.dicom.attributes import ModelFacts
from medgan.data.dicom.pixel_storage import Storage, storage_for, stored_values
from medgan.data.dicom.tolerance import tolerant
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import Task

SERIES_NUMBER_OFFSET = 1000
LARGEST_INTEGER = 2**31 - 1  # of an Integer String (PS3.5 6.2)
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")

# Patient Module, PS3.3 C.7.1.1, and General Study Module, C.7.2.1: these file the series and must be valid,
FILED_UNDER = ("PatientName", "PatientID", "StudyInstanceUID")
# these are always written, if only empty (Type 2),
PRESENT = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# and these are written if the source has them.
OPTIONAL = (
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
)
# The coordinates that source and result share: Frame of Reference Module, C.7.4.1, and the patient's position in them.
COORDINATES = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition")
# General Image Module, C.7.6.1.1.5: an image made from lossy compressed ones stays marked as such.
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def write_derived(
    volume: Volume, headers: Sequence[Dataset], folder: Path, *, task: Task, model: ModelFacts
) -> list[Path]:
    """Writes one file a slice, all or none, and returns the files in slice order.

    The folder gets its name once its last file is on the disk. Patient, study and frame of reference are the source's;
    series and instances are new.

    Args:
        volume: (slices, rows, columns) in the unit of the task's target, slices stacked along their normal.
        headers: the source's slices without pixels, one for each slice of the volume, in its order.
        folder: where the series goes; must not exist, or be empty.

    Raises:
        InputError: the folder is not empty, the headers do not fit the volume, or the values cannot be stored.

    Warns:
        UserWarning: an attribute of the source is invalid and is left empty; the warning does not hold its value.

    DICOM: PS3.3 A.3 (CT Image IOD), C.7.6.1 (General Image), C.7.6.2 (Image Plane), C.12.1 (SOP Common).
    """
    storage = storage_for(task.target.modality)
    refuse_taken(folder)
    with tolerant():
        _check_belongs(volume, headers, storage)
        copied, lossy = _copied(headers[0]), _lossy(headers)
        number, burned_in = _series_number(headers[0]), _burned_in(headers)
    if any(_fault(header, "SOPInstanceUID") for header in headers):
        warnings.warn("SOPInstanceUID of source slices is no valid UID and is referred to as it is", stacklevel=2)
    pixels, slope, intercept = stored_values(volume.array, storage)
    shared = {
        **copied,
        **modules.series(task, series_uid=generate_uid(prefix=None), number=number, now=datetime.now()),
        **burned_in,
        **lossy,
        **modules.equipment(task, model),
        **modules.pixel_format(pixels, slope=slope, intercept=intercept),
        **storage.attributes,
        "SOPClassUID": storage.sop_class,
        "ImageType": list(storage.image_type),
        **({storage.number_of_slices: len(pixels)} if storage.number_of_slices else {}),
    }
    names = [f"{index + 1:05d}.dcm" for index in range(len(pixels))]
    with appearing(folder) as partial:
        for index, (name, header) in enumerate(zip(names, headers, strict=True)):
            own = {
                "SOPInstanceUID": generate_uid(prefix=None),
                **_of_same_modality(header, task, storage),
                **modules.plane(volume, index),
                **({storage.slice_index: index + 1} if storage.slice_index else {}),
                **modules.derivation(
                    task,
                    model,
                    sop_class=header.SOPClassUID,
                    sop_instance=header.SOPInstanceUID,
                    frame=header.get("ReferencedFrameNumber"),
                ),
                "PixelData": pixels[index].astype("<u2", copy=False).tobytes(),
            }
            _write(partial / name, {key: value for key, value in {**shared, **own}.items() if key not in storage.never})
    return [folder / name for name in names]


def _series_number(header: Dataset) -> int:
    """Returns the source's Series Number plus an offset; the offset alone where the sum is no Integer String."""
    try:
        number = SERIES_NUMBER_OFFSET + int(header.get("SeriesNumber") or 0)
    except (ValueError, TypeError, OverflowError):
        number = LARGEST_INTEGER + 1
    if number <= LARGEST_INTEGER:
        return number
    warnings.warn(f"SeriesNumber of the source series is not usable; it became {SERIES_NUMBER_OFFSET}", stacklevel=2)
    return SERIES_NUMBER_OFFSET


def _burned_in(headers: Sequence[Dataset]) -> dict[str, object]:
    """Returns Burned In Annotation (0028,0301): YES if a source slice has it, NO if all deny it, else nothing."""
    answers = {str(header.get("BurnedInAnnotation") or "") for header in headers}
    if "YES" in answers:
        warnings.warn("the source says Burned In Annotation YES: its pixels may name the patient", stacklevel=2)
        return {"BurnedInAnnotation": "YES"}
    return {"BurnedInAnnotation": "NO"} if answers == {"NO"} else {}


def refuse_taken(folder: Path) -> None:
    """Raises InputError if a folder is not empty or is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("E-WRITE-04", folder=folder)


def _check_belongs(volume: Volume, headers: Sequence[Dataset], storage: Storage) -> None:
    if volume.unit != storage.unit:
        raise InputError("E-WRITE-05", unit=storage.unit, unit_2=volume.unit)
    if len(headers) != len(volume.array):
        raise InputError("E-WRITE-06", num_array=len(volume.array), num_headers=len(headers))
    half_mm = volume.spacing_mm[2] / 2
    for index, header in enumerate(headers):
        frame = header.get("FrameOfReferenceUID")
        if not frame or frame != volume.frame_of_reference:
            got = "a different one" if frame and volume.frame_of_reference else "no frame of reference in one of them"
            raise InputError("E-WRITE-07", index=index, got=got)
        source = np.asarray(header.ImagePositionPatient, dtype=float)
        off_mm = abs(modules.slice_normal(volume) @ (source - modules.slice_position(volume, index)))
        if off_mm > half_mm:
            raise InputError("E-WRITE-08", index=index, off_mm=off_mm, half_mm=half_mm)


def _copied(header: Dataset) -> dict[str, object]:
    """Returns what the derived series takes over from its source."""
    values: dict[str, object] = dict.fromkeys(FILED_UNDER + PRESENT + COORDINATES)
    for keyword in FILED_UNDER + PRESENT + OPTIONAL + COORDINATES:
        if keyword not in header:
            continue
        fault = _fault(header, keyword)
        if fault and _usable_uid(Tag(keyword), header[keyword].value):
            warnings.warn(
                f"{keyword} of the source series is no valid UID (PS3.5, section 9.1); kept as it is", stacklevel=2
            )
        elif fault and keyword in FILED_UNDER:
            raise InputError("E-WRITE-09", keyword=keyword, fault=fault)
        elif fault:
            warnings.warn(f"{keyword} of the source series is invalid and left empty: it is {fault}", stacklevel=2)
            continue
        values[keyword] = copy.deepcopy(header[keyword].value)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):  # Type 1
        if not values[keyword]:
            raise InputError("E-WRITE-10", keyword=keyword)
    return values


def _of_same_modality(header: Dataset, task: Task, storage: Storage) -> dict[str, object]:
    """Returns what an image takes over from a source of its own modality."""
    if task.source.modality != task.target.modality:
        return {}
    there = [keyword for keyword in storage.copied if keyword in header]
    return {keyword: copy.deepcopy(header[keyword].value) for keyword in there if not _fault(header, keyword)}


def _lossy(headers: Sequence[Dataset]) -> dict[str, object]:
    """Returns how a source slice was compressed with loss, or nothing."""
    for header in headers:
        if header.get("LossyImageCompression") == "01":
            return {keyword: header[keyword].value for keyword in LOSSY if keyword in header}
    return {}


def _fault(header: Dataset, keyword: str) -> str:
    """Returns how a value violates its value representation (PS3.5 6.2), without the value itself; or nothing."""
    element = header[keyword]
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    try:
        for value in values:
            validate_value(element.VR, value, RAISE)
    except ValueError:
        length = max(len(str(value)) for value in values)
        return f"no valid {element.VR} (PS3.5, section 6.2), {length} characters long"
    return ""


def _usable_uid(tag: BaseTag, value: object) -> bool:
    """Returns whether a UID identifies although a component begins with 0, as scanners and de-identifiers write."""
    return dictionary_VR(tag) == "UI" and len(str(value)) <= 64 and bool(_UID.fullmatch(str(value)))


def _write(path: Path, attributes: Mapping[str, object]) -> None:
    dataset = _dataset(attributes)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with path.open("wb") as file:
        file.write(encoded(dataset))
        file.flush()
        os.fsync(file.fileno())


def encoded(dataset: Dataset) -> bytes:
    """Returns a DICOM file; pydicom, where it writes to a full disk itself, loses what the system says of it."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _dataset(attributes: Mapping[str, object]) -> Dataset:
    """Returns a validated dataset; pydicom's global settings do not count, because other threads may change them."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        tag = Tag(keyword)
        own = [_element(one) for one in value] if isinstance(value, list) else _element(value)
        try:
            mode = IGNORE if _usable_uid(tag, own) else RAISE
            dataset.add(DataElement(tag, dictionary_VR(tag), own, validation_mode=mode))
        except ValueError:
            raise InputError("E-WRITE-11", keyword=keyword, dictionary_vr=dictionary_VR(tag)) from None
    return dataset


def _element(value: object) -> object:
    """Turns a dictionary into a sequence's item, a float into the closest Decimal String of at most 16 characters."""
    if isinstance(value, Mapping):
        return _dataset(value)
    return format_number_as_ds(value + 0.0) if type(value) is float else value  # + 0.0: no negative zero
