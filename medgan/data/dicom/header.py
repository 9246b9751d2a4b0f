"""Reads what one DICOM file says about its slices, without its pixels."""

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, MediaStorageDirectoryStorage

from medgan.data.dicom.geometry import Plane
from medgan.data.dicom.multiframe import frame_headers
from medgan.data.series import PHANTOM_MODEL, SYNTHETIC_LABEL
from medgan.errors import InputError

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "SyntheticData", "Modality",
    "SeriesDescription", "ManufacturerModelName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel", "NumberOfFrames",
    "Rows", "Columns", "PixelSpacing", "CorrectedImage",
)  # fmt: skip
TAGS = {keyword: Tag(keyword) for keyword in KEYWORDS}
WANTED: list[BaseTag | int] = sorted(TAGS.values())
LAST = int(WANTED[-1])
NUMBERS = {"SamplesPerPixel", "Rows", "Columns"}  # the others are text in the file
ESCAPE = b"\x1b"  # begins text in another character set (PS3.5 6.1.2.5)
DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, TypeError, LookupError, AttributeError,
    OverflowError, RuntimeError, OSError, struct.error, zlib.error,
)  # fmt: skip
"""These are the errors that pydicom raises where a file is damaged."""
CLASSIC = {"CT Image Storage", "MR Image Storage", "Positron Emission Tomography Image Storage"}
ENHANCED = {
    "Enhanced CT Image Storage",
    "Enhanced MR Image Storage",
    "Enhanced PET Image Storage",
    "Legacy Converted Enhanced CT Image Storage",
    "Legacy Converted Enhanced MR Image Storage",
    "Legacy Converted Enhanced PET Image Storage",
}
REQUIRED = {
    "StudyInstanceUID": "Study Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
    "SOPInstanceUID": "SOP Instance UID",
    "Modality": "Modality",
    "ImagePositionPatient": "Image Position (Patient)",
    "ImageOrientationPatient": "Image Orientation (Patient)",
    "PixelSpacing": "Pixel Spacing",
    "Rows": "Rows",
    "Columns": "Columns",
}
LARGEST_MM = 1e6
DAMAGED, EMPTY = "damaged DICOM header", "empty file"
_HARMLESS = re.compile(r"(?!.*\d{5})[A-Za-z0-9_. -]{1,16}")


@contextmanager
def damage_is(message: str) -> Iterator[None]:
    """Raises an InputError with this message where pydicom finds damage, also in values that it reads late."""
    try:
        with tolerant():
            yield
    except InputError:
        raise
    except (*DAMAGE, MemoryError) as error:
        raise InputError("E-HEADER-01", message=message, name=type(error).__name__) from error


@contextmanager
def tolerant() -> Iterator[None]:
    """Lets pydicom read what real exports hold: numbers longer than DS allows, unpadded UIDs, odd character sets."""
    _TOLERANCE.begin()
    try:
        yield
    finally:
        _TOLERANCE.end()


class _Tolerance:
    """Counts readers, because pydicom's settings are global: the first changes them, the last restores them."""

    def __init__(self) -> None:
        self._lock, self._num_readers, self._changed = threading.Lock(), 0, ExitStack()

    def begin(self) -> None:
        with self._lock:
            if self._num_readers == 0:
                self._changed.enter_context(disable_value_validation())
                self._changed.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module="pydicom")
            self._num_readers += 1

    def end(self) -> None:
        with self._lock:
            self._num_readers -= 1
            if self._num_readers == 0:
                self._changed.close()


_TOLERANCE = _Tolerance()


def redacted(value: object) -> str:
    """Returns a header's value in a form for messages: a short code or number, nothing that can name a person."""
    return str(value) if _HARMLESS.fullmatch(str(value)) else "another text"


class Slice(NamedTuple):
    """Describes one slice, from its header.

    Attributes:
        frame: number of the slice in the file, from 0.
        patient_id, study_uid, series_uid, modality, frame_of_reference: what slices of one series share.
        plane: place of the slice; None if the header gives no valid one.
        faults: such as "no Image Position (Patient)"; empty for a slice that can be used.
        attenuation_corrected, phantom, synthetic: see `Series`.
    """

    path: Path
    frame: int
    patient_id: str
    study_uid: str
    series_uid: str
    modality: str
    frame_of_reference: str
    sop_uid: str
    plane: Plane | None
    faults: tuple[str, ...]
    attenuation_corrected: bool
    phantom: bool
    synthetic: bool

    @property
    def group(self) -> tuple[str, ...]:
        """Returns what slices of one series share."""
        return self.patient_id, self.study_uid, self.series_uid, self.modality, self.frame_of_reference


def read_slices(path: Path) -> list[Slice] | str:
    """Returns the slices in a file; or the reason why it is passed over, which names nobody.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, tolerant():
        head = file.read(132)
        if not head:
            return EMPTY
        if head[128:] != b"DICM":
            return "not DICOM"
        file.seek(0)
        try:
            header = read_partial(file, _after_last, specific_tags=WANTED)
            values = _text_of(header)
            is_index = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
        except DAMAGE:
            return DAMAGED
        if not values["SOPClassUID"] and not is_index:
            return DAMAGED
        kind = UID(values.get("SOPClassUID", "")).name
        reason = _reason_to_pass_over(values, kind)
        if reason:
            return reason
        if kind in CLASSIC:
            return [_slice(path, 0, values)]
        return _frames(path, file, values)


def _after_last(tag: BaseTag, representation: str | None, length: int) -> bool:
    """Returns whether an element comes after all of `KEYWORDS`, where reading stops."""
    return int(tag) > LAST


def _text_of(header: pydicom.Dataset) -> dict[str, str]:
    """Returns the text of `KEYWORDS`, several values with a backslash in between."""
    return {keyword: _text(header, keyword, tag) for keyword, tag in TAGS.items()}


def _text(header: pydicom.Dataset, keyword: str, tag: BaseTag) -> str:
    """Returns the file's plain text: a conversion to pydicom's types and back takes as long as reading it."""
    stored = header.get_item(tag)
    value = stored.value if isinstance(stored, RawDataElement) else None
    if isinstance(value, bytes) and keyword not in NUMBERS and value.isascii() and ESCAPE not in value:
        parts: list[Any] = value.decode("ascii").split("\\")
    else:
        value = header.get(keyword)
        parts = [value] if value is None or isinstance(value, str | int | float) else list(value)
    return "\\".join("" if part is None else str(part).strip(" \0") for part in parts)


def _frames(path: Path, file: BinaryIO, values: Mapping[str, str]) -> list[Slice]:
    file.seek(0)
    try:
        headers = frame_headers(pydicom.dcmread(file, stop_before_pixels=True))
        return [_slice(path, number, _text_of(header)) for number, header in enumerate(headers)]
    except InputError as error:
        return [_slice(path, 0, values)._replace(plane=None, faults=(str(error).rstrip("."),))]
    except DAMAGE:
        return [_slice(path, 0, values)._replace(plane=None, faults=("functional groups that cannot be read",))]


def _reason_to_pass_over(values: Mapping[str, str], kind: str) -> str:
    if "Secondary Capture" in kind:
        return "secondary capture"
    if kind not in CLASSIC and kind not in ENHANCED:
        return "no CT, MR or PET image"
    if "LOCALIZER" in values.get("ImageType", "").split("\\"):
        return "localizer"
    if values.get("SamplesPerPixel", "1") not in ("", "1"):
        return "color"
    if kind in CLASSIC and values.get("NumberOfFrames", "1") not in ("", "1"):
        return "several frames without their places"
    return ""


def _slice(path: Path, frame: int, values: Mapping[str, str]) -> Slice:
    faults = [f"no {name}" for keyword, name in REQUIRED.items() if not values.get(keyword)]
    plane, invalid = _plane(values)
    modality = values.get("Modality", "")
    faults += [f"an invalid {REQUIRED[keyword]}" for keyword in invalid if values.get(keyword)]
    return Slice(
        path=path,
        frame=frame,
        patient_id=values.get("PatientID", ""),
        study_uid=values.get("StudyInstanceUID", ""),
        series_uid=values.get("SeriesInstanceUID", ""),
        modality=redacted(modality) if modality else "",
        frame_of_reference=values.get("FrameOfReferenceUID", ""),
        sop_uid=values.get("SOPInstanceUID", ""),
        plane=plane,
        faults=tuple(faults),
        attenuation_corrected="ATTN" in (values.get("CorrectedImage") or "ATTN").split("\\"),
        phantom=values.get("ManufacturerModelName") == PHANTOM_MODEL,
        synthetic=values.get("SyntheticData") == "YES" or SYNTHETIC_LABEL in values.get("SeriesDescription", ""),
    )


def _plane(values: Mapping[str, str]) -> tuple[Plane | None, list[str]]:
    """Returns the plane; or None and the keywords of its invalid parts."""
    position = _floats(values.get("ImagePositionPatient", ""))
    orientation = _floats(values.get("ImageOrientationPatient", ""))
    spacing = _floats(values.get("PixelSpacing", ""))
    size = [int(values.get(keyword, "")) if values.get(keyword, "").isdigit() else 0 for keyword in ("Rows", "Columns")]
    valid = {
        "ImagePositionPatient": len(position) == 3 and all(abs(value) < LARGEST_MM for value in position),
        "ImageOrientationPatient": _orthonormal(orientation),
        "PixelSpacing": len(spacing) == 2 and all(0 < value < LARGEST_MM for value in spacing),
        "Rows": size[0] > 0,
        "Columns": size[1] > 0,
    }
    if all(valid.values()):
        return Plane(position, orientation, spacing, (size[0], size[1])), []
    return None, [keyword for keyword, holds in valid.items() if not holds]


@lru_cache(maxsize=4096)
def _floats(text: str) -> tuple[float, ...]:
    """Returns the numbers of a Decimal String, or none if one of them is no number."""
    try:
        return tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()


@lru_cache
def _orthonormal(orientation: tuple[float, ...]) -> bool:
    if len(orientation) != 6:
        return False
    axes = np.reshape(orientation, (2, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.allclose(axes @ axes.T, np.eye(2), atol=0.02))
