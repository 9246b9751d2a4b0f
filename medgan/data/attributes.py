"""What the attributes of a DICOM file say, as text: read fast, without pixels, sequences and what nobody asks for."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import disable_value_validation
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import data_element_generator, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medgan.errors import InputError

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "ManufacturerModelName",
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "FrameOfReferenceUID", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "CorrectedImage",
)  # fmt: skip
DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, TypeError, LookupError, AttributeError,
    OverflowError, RuntimeError, OSError, struct.error, zlib.error,
)  # fmt: skip
"""What pydicom raises where a file's bytes are not what they should be."""

_TAGS: dict[int, str] = {tag_for_keyword(keyword) or 0: keyword for keyword in KEYWORDS}
_LAST = max(_TAGS)
_NUMBERS = ("Rows", "Columns", "SamplesPerPixel")  # VR US
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


@contextmanager
def damage_is(message: str) -> Iterator[None]:
    """Raises an InputError that says so where pydicom finds damage, read lazily or not."""
    try:
        with tolerant():
            yield
    except InputError:
        raise
    except (*DAMAGE, MemoryError) as error:
        raise InputError(f"{message} fails with {type(error).__name__}") from error


@contextmanager
def tolerant() -> Iterator[None]:
    """Read what real exports hold: numbers longer than DS allows, unpadded UIDs, odd character sets."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def read_attributes(file: BinaryIO) -> dict[str, str]:
    """The text of `KEYWORDS`, several values with a backslash in between.

    Args:
        file: at its beginning.
    """
    start = read_partial(file, stop_when=lambda tag, vr, length: True)
    if start.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return read_attributes_slowly(file)
    implicit, little = start.original_encoding
    found = {_TAGS[element.tag]: element for element in _elements(file, bool(implicit), bool(little))}
    character_set = _ascii(found["SpecificCharacterSet"]) if "SpecificCharacterSet" in found else ""
    values = {keyword: _ascii(element) for keyword, element in found.items() if keyword not in _NUMBERS}
    if "PatientID" in found:
        values["PatientID"] = _decoded(found["PatientID"].value or b"", character_set)
    for keyword in _NUMBERS:
        if keyword in found:
            values[keyword] = str(int.from_bytes((found[keyword].value or b"")[:2], "little" if little else "big"))
    return values


def read_attributes_slowly(file: BinaryIO) -> dict[str, str]:
    """The same by pydicom alone, which knows more of what can be wrong with a file."""
    file.seek(0)
    return text_of(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(KEYWORDS)))


def _elements(file: BinaryIO, implicit: bool, little: bool) -> Iterator[RawDataElement | DataElement]:
    """The wanted elements of the dataset that starts here."""
    stopped: list[int] = []

    def stop(tag: int, vr: str | None, length: int) -> bool:
        if tag.real > _LAST or length == _UNDEFINED:  # pydicom compares tags slowly
            stopped.append(tag.real)
        return bool(stopped)

    while True:
        yield from data_element_generator(file, implicit, little, stop_when=stop, specific_tags=list(_TAGS))
        if not stopped or stopped.pop() > _LAST:
            return
        _step_over(file, implicit, "<" if little else ">")


def _step_over(file: BinaryIO, implicit: bool, order: str) -> None:
    """Move behind an element of undefined length and all that is nested in it (PS3.5 7.5)."""
    depth = 0
    while True:
        head = file.read(8)
        group, number, length = struct.unpack(f"{order}HHL", head)
        tag = group << 16 | number
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth -= 1
        else:
            if not implicit and tag != _ITEM:
                long = head[4:6] in _LONG_VRS
                length = (
                    struct.unpack(f"{order}L", file.read(4))[0] if long else struct.unpack(f"{order}H", head[6:])[0]
                )
            if length == _UNDEFINED:
                depth += 1
            else:
                file.seek(length, 1)
        if depth == 0:
            return


def _ascii(element: RawDataElement | DataElement) -> str:
    """Text of a VR whose characters are those of ASCII (CS, DS, IS, UI), or at least are not shown to anyone."""
    return "\\".join(part.strip(" \0") for part in (element.value or b"").decode("latin-1").split("\\"))


@lru_cache
def _decoded(value: bytes, character_set: str) -> str:
    encodings = convert_encodings(character_set.split("\\") if "\\" in character_set else character_set)
    return decode_bytes(value, encodings, set()).strip(" \0")


def text_of(header: pydicom.Dataset) -> dict[str, str]:
    """The same of a dataset that is read already."""
    values = {}
    for keyword in KEYWORDS:
        value = header.get(keyword)
        parts = [value] if value is None or isinstance(value, str | int | float) else list(value)
        values[keyword] = "\\".join("" if part is None else str(part).strip(" \0") for part in parts)
    return values
