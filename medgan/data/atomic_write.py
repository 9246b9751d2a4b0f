"""Writes files so that a reader sees a whole file or none, even after a crash."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from medgan.errors import JobError

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""An OSError has one of these numbers where a disk is full, or may not be written to."""


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Writes `content` to a temporary file beside `path` (mode 600), flushes it, and renames it to `path`."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flushes a folder, so that a rename in it survives a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `folder` that is renamed to it at the end, or removed after an error."""
    folder = folder.resolve()
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    flush_folder(folder.parent)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Names the place that cannot be written to.

    Raises:
        JobError: a disk is full, or may not be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        raise JobError("E-DISK-01", place=place, reason=error.strerror) from None
