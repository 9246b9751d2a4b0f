"""Counts what a DICOM file's header holds before pydicom reads it, so that a small file cannot cost hours."""

import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from medgan.errors import InputError

MOST_ELEMENTS = 500_000  # in an enhanced image of 5000 frames there are about 300 000
MOST_ITEMS = 100_000
MOST_NESTED = 16
HEADER_BYTES = 64 << 20
INFLATED_BYTES = 1 << 30
HEADER_S = 20.0  # an enhanced image of 5000 frames takes 4 s
AGAIN_S = 1.0  # pydicom may have caught the first refusal
MARGIN_BYTES = 1 << 10  # where reading ends within the margin, the rest was perhaps not read
PIECE = 1 << 20
PREFIX = 132
"""This many bytes come before the first attribute: the preamble and "DICM"."""
ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
SEQUENCE_END_BYTES = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
META_GROUP = b"\x02\x00"
ITEM_GROUP, ITEM_END, SEQUENCE_END = 0xFFFE, 0xE00D, 0xE0DD
UNDEFINED = 0xFFFFFFFF
RAW = frozenset(b"OB OD OF OL OV OW".split())
LONG = RAW | frozenset(b"SQ SV UC UN UR UT UV".split())
"""Their length takes four bytes, after two unused ones (PS3.5 7.1.2)."""
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Their length takes two bytes."""


def is_deflated(content: bytes) -> bool:
    """Returns whether a file is in the deflated transfer syntax.

    Args:
        content: a DICOM file, or its beginning, with all of the File Meta Information.
    """
    return _meta(content)[1] == str(DeflatedExplicitVRLittleEndian)


@contextmanager
def in_time() -> Iterator[None]:
    """Ends the reading of a header that takes much processor time, whatever it holds; in a process's first thread only.

    Raises:
        InputError: it took more than `HEADER_S`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _refuse_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, HEADER_S, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _refuse_slow(*_: object) -> None:
    raise InputError("E-HEADER-03", limit_s=HEADER_S)


def check_structure(content: bytes) -> None:
    """Refuses a header that holds more than an image needs; leaves damage to pydicom.

    Args:
        content: a DICOM file, or its beginning.

    Raises:
        InputError: too many elements or items, too many sequences in each other, or too much once inflated.
    """
    place, syntax = _meta(content)
    if syntax == str(DeflatedExplicitVRLittleEndian):
        content, place = _inflated(content), 0
    _Walk(content, place, syntax).run()


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
    """Returns a deflated file's header as it is once inflated."""
    inflate, size, pieces = zlib.decompressobj(-zlib.MAX_WBITS), 0, []
    left = content[_meta(content)[0] :]
    with suppress(zlib.error):
        while left and not inflate.eof:
            piece = inflate.decompress(left, PIECE)
            left = inflate.unconsumed_tail
            if size < HEADER_BYTES:
                pieces.append(piece)
            size += len(piece)
            if size > INFLATED_BYTES:
                raise InputError("E-HEADER-02", what="MiB once inflated", value=size >> 20, most=INFLATED_BYTES >> 20)
    return b"".join(pieces)


def _meta(content: bytes) -> tuple[int, str]:
    """Returns where the File Meta Information ends, and the transfer syntax in it; its own length may be wrong.

    Raises:
        InputError: there is a sequence in it.
    """
    place, syntax = PREFIX if content[128:132] == b"DICM" else 0, ""
    is_explicit = content[place + 4 : place + 6] in SHORT | LONG
    while place + 12 <= len(content) and content[place : place + 2] == META_GROUP:
        number, kind, length = struct.unpack_from("<H2sH", content, place + 2)
        value = place + (12 if is_explicit and kind in LONG else 8)
        if value > place + 8 or not (is_explicit and kind.isalpha()):
            length = struct.unpack_from("<I", content, value - 4)[0]
        if length == UNDEFINED:
            raise InputError("E-HEADER-02", what="sequences in the File Meta Information", value=1, most=0)
        if number == 0x10:
            syntax = content[value : value + length].rstrip(b"\0 ").decode(errors="replace")
        place = value + length
    return place, syntax


class _Walk:
    """Steps from element to element, and into sequences, without reading values; ends where the bytes are no DICOM."""

    def __init__(self, content: bytes, place: int, syntax: str) -> None:
        self.content, self.place = content, place
        self.explicit = content[place + 4 : place + 6].isupper()  # as pydicom finds it, whatever the syntax is
        order = ">" if syntax == str(ExplicitVRBigEndian) else "<"
        self.head, self.long = struct.Struct(f"{order}HH2sH").unpack_from, struct.Struct(f"{order}I").unpack_from
        self.items = 0
        self.end, self.in_items = len(content) + 1, False  # of the innermost sequence or item; what comes next in it
        self.around: list[tuple[int, bool]] = []

    def run(self) -> None:
        """Counts what is there; raises InputError where it is too much."""
        content, place, last, elements = self.content, self.place, len(self.content) - 8, 0
        while place <= last:
            if place >= self.end:
                self._leave(place)
            group, number, kind, length = self.head(content, place)
            if group == ITEM_GROUP or self.in_items:
                place = self._item(place, number)
                continue
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
        if length == UNDEFINED and kind in RAW:
            return self._after_fragments(value)
        if kind == b"SQ" or length == UNDEFINED or self.content[value : value + 4] in ITEM_BYTES:
            return self._enter(value, length, in_items=True)
        return value + length

    def _after_fragments(self, place: int) -> int:
        """Returns where compressed pixels end; their fragments are no items."""
        end = max(self.content.find(mark, place) for mark in SEQUENCE_END_BYTES)
        return end + 8 if end >= 0 else len(self.content)

    def _enter(self, place: int, length: int, *, in_items: bool) -> int:
        self.around.append((self.end, self.in_items))
        self.end, self.in_items = len(self.content) + 1 if length == UNDEFINED else place + length, in_items
        if (nested := len(self.around) // 2) > MOST_NESTED:
            raise InputError("E-HEADER-02", what="sequences in each other", value=nested, most=MOST_NESTED)
        return place
