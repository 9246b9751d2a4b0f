"""Reads what one DICOM file says about its slices, without its pixels."""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, MediaStorageDirectoryStorage

from medgan.data.dicom.geometry import Plane
from medgan.data.dicom.image_type import reason_to_pass_over
from medgan.data.dicom.multiframe import check_num_frames, frame_headers
from medgan.data.dicom.plane_values import NAMES, floats, plane_of
from medgan.data.dicom.structure import MARGIN_BYTES, beginning, check_ended, in_time
from medgan.data.dicom.tolerance import DAMAGE, redacted, tolerant
from medgan.data.series import PHANTOM_MODEL, SYNTHETIC_LABEL
from medgan.data.unpack import opened, size_of
from medgan.errors import InputError

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "SyntheticData", "Modality",
    "SeriesDescription", "ManufacturerModelName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel", "NumberOfFrames",
    "Rows", "Columns", "PixelSpacing", "CorrectedImage", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "ConvolutionKernel", "AcquisitionNumber", "AcquisitionTime", "EchoTime", "TemporalPositionIdentifier",
    "ComplexImageComponent", "SliceThickness", "BodyPartExamined", "PhotometricInterpretation",
)  # fmt: skip
TAGS = {keyword: Tag(keyword) for keyword in KEYWORDS}
WANTED: list[BaseTag | int] = sorted(TAGS.values())
LAST = int(WANTED[-1])
NUMBERS = {"SamplesPerPixel", "Rows", "Columns"}  # the others are text in the file
ESCAPE = b"\x1b"  # begins text in another character set (PS3.5 6.1.2.5)
CLASSIC = {"CT Image Storage": "CT", "MR Image Storage": "MR", "Positron Emission Tomography Image Storage": "PT"}
"""This maps the name of a SOP Class to its Modality (PS3.3 C.8)."""
ENHANCED = {
    f"{legacy}Enhanced {name} Image Storage": modality
    for legacy in ("", "Legacy Converted ")
    for name, modality in (("CT", "CT"), ("MR", "MR"), ("PET", "PT"))
}
HEAD_BYTES = 1 << 14
HEAD = (b"\x08\x00", b"\x02\x00")
"""A file without the preamble begins with an attribute of one of these groups (PS3.10 7.1)."""
REQUIRED = {
    "StudyInstanceUID": "Study Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
    "SOPInstanceUID": "SOP Instance UID",
    "Modality": "Modality",
    **NAMES,
}
HEADS = ("HEAD", "BRAIN", "SKULL", "FACE", "ORBIT")  # Body Part Examined (PS3.16 annex L)
DAMAGED, EMPTY, NOT_DICOM, INDEX = "damaged DICOM header", "empty file", "not DICOM", "index (DICOMDIR)"


class Slice(NamedTuple):
    """Describes one slice, from its header.

    Attributes:
        frame: number of the slice in the file, from 0.
        patient_id, study_uid, series_uid, modality, frame_of_reference: what slices of one series share.
        plane: place of the slice; None if the header gives no valid one.
        faults: such as "no Image Position (Patient)"; empty for a slice that can be used.
        issuer, birth_date, sex: what tells two patients of one Patient ID apart; empty where unknown.
        kernel, acquisition, acquisition_time, echo_time, time_point: what tells stacks in one series apart.
        head: see `Series`.
        original: whether Image Type does not say DERIVED.
        thickness_mm: Slice Thickness; 0 where unknown.
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
    issuer: str
    birth_date: str
    sex: str
    kernel: str
    acquisition: str
    acquisition_time: str
    echo_time: str
    time_point: str
    head: bool
    original: bool
    thickness_mm: float
    attenuation_corrected: bool
    phantom: bool
    synthetic: bool

    @property
    def group(self) -> tuple[str, ...]:
        """Returns what slices of one series share."""
        return self.patient_id, self.issuer, self.study_uid, self.series_uid, self.modality, self.frame_of_reference


def read_slices(path: Path) -> list[Slice] | str:
    """Returns the slices in a file; or the reason why it is passed over, which names nobody.

    Raises:
        OSError: the file cannot be read.
    """
    with opened(path) as file, tolerant(), in_time():
        head = file.read(HEAD_BYTES)
        if not head:
            return EMPTY
        bare = head[128:132] != b"DICM"
        if bare and head[:2] not in HEAD:
            return NOT_DICOM
        values = _values(file, head, bare)
        if isinstance(values, str):
            return values
        kind = UID(values["SOPClassUID"]).name
        reason = _reason_to_pass_over(values, kind)
        if reason:
            return reason
        if kind in CLASSIC:
            return [_slice(path, 0, values, CLASSIC[kind])]
        return _frames(path, file, values, ENHANCED[kind])


def _values(file: BinaryIO, head: bytes, bare: bool) -> dict[str, str] | str:
    """Returns the text of `KEYWORDS`, or why the file is passed over."""
    try:
        header = _header(file, head, bare)
        values = _text_of(header)
        is_index = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    except InputError as error:
        return f"{DAMAGED}: {error}".rstrip(".")
    except DAMAGE:
        return NOT_DICOM if bare else DAMAGED
    if is_index:
        return INDEX
    if not values["SOPClassUID"]:
        return NOT_DICOM if bare else DAMAGED
    return values


def _header(file: BinaryIO, head: bytes, bare: bool) -> pydicom.FileDataset:
    """Returns the elements up to `LAST`, from the beginning of the file where it holds them all."""
    stream = BytesIO(head)  # pydicom reads in small pieces: a tenth faster than from disk
    with suppress(*DAMAGE):
        header = read_partial(stream, _after_last, specific_tags=WANTED, force=bare)
        if stream.tell() < HEAD_BYTES - MARGIN_BYTES:
            return header
    stream = beginning(file)
    header = read_partial(stream, _after_last, specific_tags=WANTED, force=bare)
    check_ended(stream)
    return header


def full_header(file: BinaryIO) -> pydicom.FileDataset:
    """Returns all of a file's elements before the pixels; raises InputError where there are too many."""
    stream = beginning(file)
    with in_time():
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    check_ended(stream)
    check_num_frames(header, partial(size_of, file))
    return header


def _after_last(tag: BaseTag, representation: str | None, length: int) -> bool:
    """Returns whether an element comes after all of `KEYWORDS`, where reading stops."""
    return int(tag) > LAST


def _text_of(header: pydicom.Dataset) -> dict[str, str]:
    """Returns the text of `KEYWORDS`, several values with a backslash in between."""
    stored = dict(header.items())
    return {keyword: _text(header, keyword, stored[tag]) if tag in stored else "" for keyword, tag in TAGS.items()}


def _text(header: pydicom.Dataset, keyword: str, stored: object) -> str:
    """Returns the file's plain text: a conversion to pydicom's types and back takes as long as reading it."""
    value = stored.value if isinstance(stored, RawDataElement) else None
    if isinstance(value, bytes) and keyword not in NUMBERS and value.isascii() and ESCAPE not in value:
        return _stripped(value)
    value = header.get(keyword)
    parts = [value] if value is None or isinstance(value, str | int | float) else list(value)
    return "\\".join("" if part is None else str(part).strip(" \0") for part in parts)


@lru_cache(maxsize=4096)
def _stripped(value: bytes) -> str:
    """Returns the text of an ASCII value; most values are the same in many files."""
    return "\\".join(part.strip(" \0") for part in value.decode("ascii").split("\\"))


def _frames(path: Path, file: BinaryIO, values: Mapping[str, str], expected: str) -> list[Slice]:
    try:
        headers = frame_headers(full_header(file))
        return [_slice(path, number, _text_of(header), expected) for number, header in enumerate(headers)]
    except InputError as error:
        return [_slice(path, 0, values, expected)._replace(plane=None, faults=(str(error).rstrip("."),))]
    except DAMAGE:
        fault = "functional groups that cannot be read"
        return [_slice(path, 0, values, expected)._replace(plane=None, faults=(fault,))]


def _reason_to_pass_over(values: Mapping[str, str], kind: str) -> str:
    if "Secondary Capture" in kind:
        return "secondary capture"
    if kind not in CLASSIC and kind not in ENHANCED:
        return "no CT, MR or PET image"
    if values.get("SamplesPerPixel", "1") not in ("", "1") or "COLOR" in values.get("PhotometricInterpretation", ""):
        return "color"
    if kind in CLASSIC and values.get("NumberOfFrames", "1") not in ("", "1"):
        return "several frames without their places"
    return reason_to_pass_over(values)


def _slice(path: Path, frame: int, values: Mapping[str, str], expected: str) -> Slice:
    """Returns the slice; `expected` is the Modality of its SOP Class."""
    plane, faults = plane_of(values)
    modality = redacted(values["Modality"]) if values.get("Modality") else ""
    thickness = floats(values.get("SliceThickness", ""))
    kernel = values.get("ConvolutionKernel", "").split("\\")[0]
    return Slice(
        path=path,
        frame=frame,
        patient_id=values.get("PatientID", ""),
        study_uid=values.get("StudyInstanceUID", ""),
        series_uid=values.get("SeriesInstanceUID", ""),
        modality=modality,
        frame_of_reference=values.get("FrameOfReferenceUID", ""),
        sop_uid=values.get("SOPInstanceUID", ""),
        plane=plane,
        faults=_faults(values, faults, modality, expected),
        issuer=values.get("IssuerOfPatientID", ""),
        birth_date=values.get("PatientBirthDate", ""),
        sex=values.get("PatientSex", ""),
        kernel=redacted(kernel) if kernel else "",
        acquisition=values.get("AcquisitionNumber", ""),
        acquisition_time=values.get("AcquisitionTime", ""),
        echo_time=values.get("EchoTime", ""),
        time_point=values.get("TemporalPositionIdentifier", ""),
        head=values.get("BodyPartExamined", "").upper() in HEADS,
        original=not values.get("ImageType", "").startswith("DERIVED"),
        thickness_mm=thickness[0] if len(thickness) == 1 and thickness[0] > 0 else 0.0,
        attenuation_corrected="ATTN" in (values.get("CorrectedImage") or "ATTN").split("\\"),
        phantom=values.get("ManufacturerModelName") == PHANTOM_MODEL,
        synthetic=values.get("SyntheticData") == "YES" or SYNTHETIC_LABEL in values.get("SeriesDescription", ""),
    )


def _faults(values: Mapping[str, str], of_plane: list[str], modality: str, expected: str) -> tuple[str, ...]:
    """Returns why a slice cannot be used."""
    faults = [f"no {name}" for keyword, name in REQUIRED.items() if not values.get(keyword)] + of_plane
    if modality and modality != expected:
        faults.append(f"the Modality {modality} although the SOP Class is that of {expected} images")
    return tuple(faults)
