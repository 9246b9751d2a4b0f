"""Write files so that a reader sees the whole of one or nothing, after a crash too."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write the parts of `content` under a temporary name beside `path` (mode 600), flush them, rename it to `path`."""
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
    """Make the names in `folder` durable: a rename is not until its folder is flushed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
