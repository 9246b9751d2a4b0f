"""Lets pydicom read what real exports hold, and turns the damage that it finds into an `InputError`."""

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError

from medgan.errors import InputError

DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, TypeError, LookupError, AttributeError,
    OverflowError, RuntimeError, OSError, struct.error, zlib.error,
)  # fmt: skip
"""These are the errors that pydicom raises where a file is damaged."""
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
