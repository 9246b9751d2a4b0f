"""Reads the size that a compressed frame gives itself, so that no decoder makes more than the header promises."""

import struct

import pydicom
from pydicom.encaps import generate_frames

from medgan.data.dicom.tolerance import redacted
from medgan.errors import InputError

BITS = (8, 16, 32, 64)
J2K_START = b"\xff\x4f\xff\x51"
JPEG_START = b"\xff\xd8"
NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
NO_FRAME = {0xC4, 0xC8, 0xCC}
SIZES = {*range(0xC0, 0xD0), 0xF7} - NO_FRAME
"""These markers (JPEG, JPEG-LS) begin a segment that gives rows, columns and components."""


def check_frames(dataset: pydicom.Dataset, size: tuple[int, ...], modality: str, number: int) -> None:
    """Refuses pixels of odd bits, and compressed frames larger than Rows and Columns; leaves damage to the decoder.

    Args:
        size: (rows, columns) of the header.
        modality, number: which slice the message names.

    Raises:
        InputError: Bits Allocated is that of no image, or a frame would be decoded to more pixels than the header says.
    """
    if (bits := dataset.get("BitsAllocated")) not in BITS:
        shown = bits if isinstance(bits, int) else redacted(bits)
        raise InputError("E-READ-09", modality=modality, number=number, bits=shown, known=BITS)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in dataset:
        return
    most = size[0] * size[1] * int(dataset.get("SamplesPerPixel") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        found = size_of(frame)
        if found is not None and found[0] * found[1] * found[2] > most:
            raise InputError("E-READ-08", modality=modality, number=number, found=_times(found), size=_times(size))


def _times(lengths: tuple[int, ...]) -> str:
    return " x ".join(map(str, lengths))


def size_of(frame: bytes) -> tuple[int, int, int] | None:
    """Returns (rows, columns, components) of a JPEG, JPEG-LS or JPEG 2000 code stream; None where it gives none."""
    try:
        if (start := frame.find(J2K_START)) >= 0:
            right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
            return bottom - top, right - left, struct.unpack_from(">H", frame, start + 40)[0]
        return _jpeg_size(frame) if frame.startswith(JPEG_START) else None
    except struct.error:
        return None


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    place = 2
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in SIZES:
            rows, columns, components = struct.unpack_from(">HHB", frame, place + 5)
            return rows, columns, components
        if marker == 0xFF:  # filled up
            place += 1
        else:
            place += 2 if marker in NO_LENGTH else 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None
