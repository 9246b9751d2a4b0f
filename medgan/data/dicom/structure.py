"""Counts what a DICOM file's header holds before pydicom reads it, so that a small file cannot cost hours."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from medgan.errors import InputError

MOST_ELEMENTS = 500_000  # in an enhanced image of 5000 frames there are about 300 000
MOST_ITEMS = 100_000
MOST_NESTED = 16
HEADER_BYTES = 64 << 20
INFLATED_BYTES = 1 << 30
SUSPICIOUS_ITEMS = 50
SUSPICIOUS_BYTES = 1 << 20
MARGIN_BYTES = 1 << 10  # where reading ends within the margin, the rest was perhaps not read
PIECE = 1 << 20
PREFIX = 132
"""This many bytes come before the first attribute: the preamble and "DICM"."""
PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian
ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Their length takes four bytes, after two unused ones (PS3.5 7.1.2)."""


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
    end = max(content.rfind(tag) for tag in PIXELS)
    if 0 <= end <= SUSPICIOUS_BYTES and sum(map(content.count, ITEM_BYTES)) <= SUSPICIOUS_ITEMS:
        return
    counts = _Counts()
    for _ in _Walk(content).steps(counts):
        counts.check()


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


@dataclass
class _Counts:
    elements: int = 0
    items: int = 0
    nested: int = 0

    def check(self) -> None:
        for what, value, most in (
            ("elements", self.elements, MOST_ELEMENTS),
            ("sequence items", self.items, MOST_ITEMS),
            ("sequences in each other", self.nested, MOST_NESTED),
        ):
            if value > most:
                raise InputError("E-HEADER-02", what=what, value=value, most=most)


@dataclass
class _Walk:
    """Steps from element to element, and into sequences, without reading values.

    Attributes:
        open: ends of the sequences and items around `place`, and whether items come next (else elements).
    """

    content: bytes
    place: int = 0
    order: str = "<"
    explicit: bool = True
    open: list[tuple[int, bool]] = field(default_factory=list)

    def steps(self, counts: _Counts) -> Iterator[None]:
        """Counts element by element up to the pixels; ends where the bytes are no DICOM."""
        self.place = _after_meta(self.content)
        meta = self.content[: self.place]
        self.explicit = str(ImplicitVRLittleEndian).encode() + b"\0" not in meta and bool(meta)
        self.order = ">" if str(ExplicitVRBigEndian).encode() + b"\0" in meta else "<"
        while self.place + 8 <= len(self.content):
            while self.open and self.place >= self.open[-1][0]:
                self.open.pop()
            group, number = struct.unpack_from(f"{self.order}HH", self.content, self.place)
            tag = group << 16 | number
            if tag == 0x7FE00010 and not self.open:
                return
            self._step(tag, counts)
            counts.nested = len(self.open) // 2
            yield

    def _step(self, tag: int, counts: _Counts) -> None:
        in_items = bool(self.open) and self.open[-1][1]
        if tag in (ITEM_END, SEQUENCE_END):
            self.place += 8
            if self.open:
                self.open.pop()
        elif in_items or tag == ITEM:
            counts.items += 1
            self._enter(self._number("I", 4), 8, items=False)
        else:
            counts.elements += 1
            self._element()

    def _element(self) -> None:
        kind = self.content[self.place + 4 : self.place + 6] if self.explicit else b""
        if not self.explicit or not kind.isalpha():
            length, head = self._number("I", 4), 8
        elif kind in LONG:
            length, head = self._number("I", 8), 12
        else:
            length, head = self._number("H", 6), 8
        value = self.place + head
        if kind == b"SQ" or length == UNDEFINED or self.content[value : value + 4] in ITEM_BYTES:
            self._enter(length, head, items=True)
        else:
            self.place = value + length

    def _enter(self, length: int, head: int, *, items: bool) -> None:
        self.place += head
        end = len(self.content) + 1 if length == UNDEFINED else self.place + length
        self.open.append((end, items))

    def _number(self, kind: str, offset: int) -> int:
        if self.place + offset + 4 > len(self.content):
            return 0
        return int(struct.unpack_from(f"{self.order}{kind}", self.content, self.place + offset)[0])
