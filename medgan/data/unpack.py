"""Opens files that are packed: members of zip files and files compressed with gzip."""

import gzip
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from medgan.errors import InputError

LARGEST_BYTES = 8 << 30  # of one file, once unpacked
DIRECTORY_BYTES = 64 << 20  # of a zip file: more than half a million names
PIECE = 1 << 20
UNSAFE = "unsafe name in a zip file"
UNPACKING_ERRORS = (EOFError, ValueError, LookupError, RuntimeError, OverflowError, zlib.error, zipfile.BadZipFile)
"""Python's zipfile and gzip raise these where what is packed is damaged, encrypted or packed in an unknown way."""
UNREADABLE = (OSError, *UNPACKING_ERRORS)
"""These errors are raised where a packed file is damaged in this way, or cannot be read at all."""
ZIP, GZIP = ".zip", ".gz"
DAMAGED_ZIP, SECRET_ZIP, TOO_LARGE = "damaged zip file", "encrypted file in a zip file", "more than 8 GiB when unpacked"


def is_packed(path: Path) -> bool:
    """Returns whether the name is that of a zip file, or of a file compressed with gzip."""
    return path.suffix.lower() in (ZIP, GZIP)


def members(paths: Iterable[Path], passed_over: Counter[str]) -> Iterator[Path]:
    """Yields the paths, and for a zip file those of its members: the zip file's path and the member's name.

    Args:
        passed_over: counts, by reason, what cannot be unpacked.
    """
    for path in paths:
        if path.suffix.lower() != ZIP:
            yield path
            continue
        try:
            entries = sorted(_archive(path, path.stat().st_mtime_ns).infolist(), key=lambda one: one.filename)
        except UNREADABLE:
            passed_over[DAMAGED_ZIP] += 1
            continue
        for entry in entries:
            if entry.is_dir():
                continue
            if PurePosixPath(entry.filename).is_absolute() or ".." in PurePosixPath(entry.filename).parts:
                passed_over[UNSAFE] += 1
            elif entry.flag_bits & 1:
                passed_over[SECRET_ZIP] += 1
            elif entry.file_size > LARGEST_BYTES:
                passed_over[TOO_LARGE] += 1
            else:
                yield path / entry.filename


def stored_in(path: Path) -> Path:
    """Returns the file on disk that holds a file: the path itself, or the zip file."""
    if f"{ZIP}/" not in str(path).lower():
        return path
    for parent in reversed(path.parents):
        if parent.suffix.lower() == ZIP and _is_file(parent):
            return parent
    return path


def opened(path: Path) -> BinaryIO:
    """Opens a file, a file compressed with gzip, or a member of a zip file, for reading bytes.

    Raises:
        OSError: the file cannot be read, or what is packed is damaged.
    """
    place, packed = stored_in(path), path.suffix.lower() == GZIP
    if place == path:
        return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")
    try:
        archive = _archive(place, place.stat().st_mtime_ns)
        file = cast(BinaryIO, archive.open(str(path.relative_to(place))))
    except UNREADABLE as error:
        raise OSError(f"a {ZIP} file is damaged") from error
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file


def size_of(file: BinaryIO) -> int:
    """Returns the size of an opened file, once unpacked; at most `LARGEST_BYTES` for one compressed with gzip."""
    return file.seek(LARGEST_BYTES) if isinstance(file, gzip.GzipFile) else file.seek(0, os.SEEK_END)


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file, unpacked; raises OSError as `opened` does."""
    if path.suffix.lower() != GZIP and stored_in(path) == path:
        return path.read_bytes()
    content = bytearray()
    with opened(path) as file:
        while piece := file.read(PIECE):
            content += piece
            if len(content) > LARGEST_BYTES:
                raise InputError("E-READ-06", limit=LARGEST_BYTES >> 30)
    return bytes(content)


@lru_cache(maxsize=8)
def _archive(path: Path, changed_ns: int) -> zipfile.ZipFile:
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[zipfile._ECD_SIZE] > DIRECTORY_BYTES:  # type: ignore[attr-defined]
        raise zipfile.BadZipFile("its directory is too large")
    return zipfile.ZipFile(path)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
