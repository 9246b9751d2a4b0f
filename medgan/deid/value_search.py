"""Finds many values in many bytes at once, in their usual spellings."""

import html
import json
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import quote

import numpy as np

START = 4  # bytes that are compared first
TABLE_BITS = 20


class Needles:
    """Finds values; NumPy picks the places where the first four bytes match, a lookup then compares all bytes.

    Each is found in UTF-8, UTF-16 and Latin-1, in usual cases of letters, and as JSON, HTML and URLs write it. Digits
    alone are found only where they are a whole number, since decimals of any length hold them by chance.

    Args:
        values: value of 4 characters or more -> its kind.

    Attributes:
        longest: number of bytes of the longest needle; windows of a file have to overlap by more.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._kinds = {written: kind for value, kind in values.items() for written in _spellings(value)}
        self.longest = max((len(written) for written in self._kinds), default=0)
        lengths: dict[bytes, set[int]] = defaultdict(set)
        for written in self._kinds:
            lengths[written[:START]].add(len(written))
        self._lengths = {start: sorted(known) for start, known in lengths.items()}
        self._table = np.zeros(1 << TABLE_BITS, bool)
        for start in self._lengths:
            self._table[_hashes(start)] = True

    def kinds_in(self, text: bytes) -> set[str]:
        """Returns the kinds of the values that are in `text`."""
        if not self._kinds or len(text) < START:
            return set()
        found = set()
        for position in np.flatnonzero(self._table[_hashes(text)]).tolist():
            for length in self._lengths.get(text[position : position + START], ()):
                end = position + length
                written = text[position:end]
                if written in self._kinds and not (written.isdigit() and _inside_number(text, position, end)):
                    found.add(self._kinds[written])
        return found


def _spellings(value: str) -> set[bytes]:
    cases = {value, value.upper(), value.lower(), value.title()}
    texts = {form for text in cases for form in (text, json.dumps(text)[1:-1], html.escape(text), quote(text))}
    written = {text.encode(code, errors="replace") for text in texts for code in ("utf-8", "utf-16-le")}
    return written | {text.encode("latin-1", errors="replace") for text in cases if not text.isascii()}


def _hashes(text: bytes) -> np.ndarray:
    """Returns a number below 2 ** TABLE_BITS for every four bytes in a row, (len(text) - 3,), by Knuth's method."""
    starts = np.ndarray(len(text) - START + 1, "<u4", text, strides=(1,))
    return (starts * np.uint32(2654435761)) >> np.uint32(32 - TABLE_BITS)


def _inside_number(text: bytes, start: int, end: int) -> bool:
    before = text[max(start - 1, 0) : start]
    return before.isdigit() or before == b"." or text[end : end + 1].isdigit()
