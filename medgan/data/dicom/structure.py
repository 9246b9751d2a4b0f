"""Counts what a DICOM file's header holds before pydicom reads it, so that a small file cannot cost hours."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from medgan.errors import InputError

MOST_ELEMENTS = 500_000  # in an enhanced image of 5000 frames there are about 300 000
MOST_ITEMS = 100_000
MOST_NESTED = 16
HEADER_BYTES = 64 << 20
INFLATED_BYTES = 1 << 30
MARGIN_BYTES = 1 << 10  # where reading ends within the margin, the rest was perhaps not read
PIECE = 1 << 20
PREFIX = 132
"""This many bytes come before the first attribute: the preamble and "DICM"."""
ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
ITEM_GROUP, ITEM_END, SEQUENCE_END = 0xFFFE, 0xE00D, 0xE0DD
UNDEFINED = 0xFFFFFFFF
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Their length takes four bytes, after two unused ones (PS3.5 7.1.2)."""
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Their length takes two bytes."""


def is_deflated(head: bytes) -> bool:
    """Returns whether the first bytes of a file name the deflated transfer syntax, also where they are damaged."""
    return str(DeflatedExplicitVRLittleEndian).encode() in head[:1024]


def check_structure(content: bytes) -> None:
    """Refuses a header that holds more than an image needs; leaves damage to pydicom.

    Args:
        content: a DICOM file, or its beginning.

    Raises:
        InputError: too many elements or items, too many sequences in each other, or too much once inflated.
    """
    if is_deflated(content):
        content = _inflated(content)
    _Walk(content).run()


def beginning(file: BinaryIO) -> BytesIO:
    """Returns the first bytes of a DICOM file, which hold its header, after `check_structure`."""
    file.seek(0)
    content = file.read(HEADER_BYTES)
    check_structure(content)
    return BytesIO(content)


def check_ended(stream: BytesIO) -> None:
    """Refuses a header that did not end in `beginning`."""
    if stream.tell() >= HEADER_BYTES - MARGIN_BYTES:
        raise InputError("E-HEADER-02", what="MiB before the pixels", value="more", most=HEADER_BYTES >> 20)


def _inflated(content: bytes) -> bytes:
    """Returns a deflated file's File Meta Information, and its header as it is once inflated."""
    inflate, size, pieces = zlib.decompressobj(-zlib.MAX_WBITS), 0, []
    place = _after_meta(content)
    left = content[place:]
    with suppress(zlib.error):
        while left and not inflate.eof:
            piece = inflate.decompress(left, PIECE)
            left = inflate.unconsumed_tail
            if size < HEADER_BYTES:
                pieces.append(piece)
            size += len(piece)
            if size > INFLATED_BYTES:
                raise InputError("E-HEADER-02", what="MiB once inflated", value=size >> 20, most=INFLATED_BYTES >> 20)
    return content[:place] + b"".join(pieces)


def _after_meta(content: bytes) -> int:
    """Returns where the File Meta Information ends; its length is the value of (0002,0000)."""
    place = PREFIX if content[128:132] == b"DICM" else 0
    if content[place : place + 4] != b"\x02\x00\x00\x00" or len(content) < place + 12:
        return place
    return place + 12 + int(struct.unpack_from("<I", content, place + 8)[0])


class _Walk:
    """Steps from element to element, and into sequences, without reading values; ends where the bytes are no DICOM."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, _after_meta(content)
        meta = content[: self.place]
        self.explicit = str(ImplicitVRLittleEndian).encode() + b"\0" not in meta and bool(meta)
        order = ">" if str(ExplicitVRBigEndian).encode() + b"\0" in meta else "<"
        self.head, self.long = struct.Struct(f"{order}HH2sH").unpack_from, struct.Struct(f"{order}I").unpack_from
        self.items = 0
        self.end, self.in_items = len(content) + 1, False  # of the innermost sequence or item; what comes next in it
        self.around: list[tuple[int, bool]] = []

    def run(self) -> None:
        """Counts up to the pixels; raises InputError where there is too much."""
        content, place, last, elements = self.content, self.place, len(self.content) - 8, 0
        while place <= last:
            if place >= self.end:
                self._leave(place)
            group, number, kind, length = self.head(content, place)
            if group == ITEM_GROUP or self.in_items:
                place = self._item(place, number)
                continue
            if group == 0x7FE0 and number == 0x10 and not self.around:
                return
            elements += 1
            if elements > MOST_ELEMENTS:
                raise InputError("E-HEADER-02", what="elements", value=elements, most=MOST_ELEMENTS)
            place = place + 8 + length if self.explicit and kind in SHORT else self._element(place, kind, length)

    def _leave(self, place: int) -> None:
        while self.around and place >= self.end:
            self.end, self.in_items = self.around.pop()

    def _item(self, place: int, number: int) -> int:
        """Goes into an item, or over the end of one; returns where to go on."""
        if number in (ITEM_END, SEQUENCE_END):
            if self.around:
                self.end, self.in_items = self.around.pop()
            return place + 8
        self.items += 1
        if self.items > MOST_ITEMS:
            raise InputError("E-HEADER-02", what="sequence items", value=self.items, most=MOST_ITEMS)
        return self._enter(place + 8, self.long(self.content, place + 4)[0], in_items=False)

    def _element(self, place: int, kind: bytes, length: int) -> int:
        """Goes over an element, or into a sequence; returns where to go on."""
        value = place + 8
        if not self.explicit or not kind.isalpha():
            length = self.long(self.content, place + 4)[0]
        elif kind in LONG:
            value = place + 12
            length = self.long(self.content, place + 8)[0] if value <= len(self.content) else 0
        if kind == b"SQ" or length == UNDEFINED or self.content[value : value + 4] in ITEM_BYTES:
            return self._enter(value, length, in_items=True)
        return value + length

    def _enter(self, place: int, length: int, *, in_items: bool) -> int:
        self.around.append((self.end, self.in_items))
        self.end, self.in_items = len(self.content) + 1 if length == UNDEFINED else place + length, in_items
        if (nested := len(self.around) // 2) > MOST_NESTED:
            raise InputError("E-HEADER-02", what="sequences in each other", value=nested, most=MOST_NESTED)
        return place
