"""Writes the body of a request to numbered files in a folder, within limits; ignores the names in the request."""

import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from medgan.data.unpack import UNPACKING_ERRORS
from medgan.errors import CodedError

MULTIPART = b"multipart/form-data"
ZIP = (b"application/zip", b"application/x-zip-compressed")
UPLOAD = "upload.zip"
PIECE = 1 << 20
ENTRY = b"PK\x01\x02"  # start of an entry in the directory of a zip file


@dataclass(frozen=True)
class Limits:
    """Holds the limits of a request.

    Attributes:
        body_bytes: size of the body, as it is sent.
        files: number of files in the body.
        inflated_bytes: size of all unpacked files; also of all pixels, decoded and on the network's grid, as float32.
        request_s: seconds from the first byte of the request to the first byte of the answer.
        requests: number of requests in work or waiting at once.
    """

    body_bytes: int = 1 << 30
    files: int = 5000
    inflated_bytes: int = 4 << 30
    request_s: float = 600.0
    requests: int = 16


class Refusal(CodedError):
    """Says that a request cannot be served: what was expected and what came, without identifiers."""

    @property
    def status(self) -> int:
        """Returns the HTTP status of the answer."""
        return int(self.fields["status"])


async def receive(body: AsyncIterator[bytes], content_type: str, folder: Path, *, limits: Limits) -> bool:
    """Writes the files of a multipart body, or a zip body as one file, while the body arrives.

    Args:
        folder: an empty folder.

    Returns:
        Whether there is a zip file to unpack, see `unpack`.

    Raises:
        Refusal: the body has another type (415), is too large (413), or is empty or damaged (400).
    """
    kind, options = parse_options_header(content_type)
    if kind == MULTIPART:
        if not options.get(b"boundary"):
            raise Refusal("E-UPLOAD-09", status=400)
        parts = _Parts(folder, limits.files)
        try:
            parser = MultipartParser(options[b"boundary"], parts.callbacks)
            await _copy(body, parser, limits)
        except FormParserError:
            raise Refusal("E-UPLOAD-10", num_files=parts.count, status=400) from None
        finally:
            parts.close()
        if not parts.ended:
            raise Refusal("E-UPLOAD-11", num_files=parts.count, status=400)
        return False
    if kind in ZIP:
        with (folder / UPLOAD).open("wb") as file:
            await _copy(body, file, limits)
        return True
    raise Refusal("E-UPLOAD-12", content_type="another type" if kind else "no type", status=415)


async def _copy(body: AsyncIterator[bytes], sink: MultipartParser | BinaryIO, limits: Limits) -> None:
    taken = 0
    async for piece in body:
        taken += len(piece)
        refuse_large(taken, limits)
        sink.write(piece)
    if not taken:
        raise Refusal("E-UPLOAD-13", num_bytes=taken, status=400)


def refuse_large(num_bytes: int, limits: Limits) -> None:
    """Refuses a body larger than the limit (413)."""
    if num_bytes > limits.body_bytes:
        raise Refusal("E-UPLOAD-14", body_bytes=limits.body_bytes >> 20, status=413)


def refuse_many(num_files: int, limit: int) -> None:
    """Refuses more files than the limit (413)."""
    if num_files > limit:
        raise Refusal("E-UPLOAD-15", limit=limit, status=413)


class _Parts:
    """Writes each part of a multipart body to a file of its own."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most, self.count, self.ended = folder, most, 0, False
        self.file: BinaryIO | None = None
        self.callbacks: Any = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self.count += 1
        refuse_many(self.count, self.most)
        self.file = (self.folder / f"{self.count}.dcm").open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self.file is not None, "data comes inside a part"
        self.file.write(data[start:end])

    def close(self) -> None:
        """Closes the file of the part being written, if there is one."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _end(self) -> None:
        self.ended = True


def unpack(folder: Path, limits: Limits) -> None:
    """Unpacks the zip file that `receive` wrote, counts the bytes actually unpacked, and removes the zip file.

    Raises:
        Refusal: the file is no zip file, damaged, encrypted or unusual (400); files are too many or too large (413).
    """
    upload = folder / UPLOAD
    _refuse_crowded(upload, limits.files)
    try:
        with zipfile.ZipFile(upload) as archive:
            _unpack(archive, folder, limits.inflated_bytes)
    except UNPACKING_ERRORS as error:
        raise Refusal("E-UPLOAD-16", name=type(error).__name__, status=400) from None
    upload.unlink()


def _unpack(archive: zipfile.ZipFile, folder: Path, limit: int) -> None:
    left = limit
    for number, entry in enumerate(archive.infolist(), 1):
        if entry.is_dir():
            continue
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile("neither stored nor deflated")
        with archive.open(entry) as source, (folder / f"{number}.dcm").open("wb") as file:
            while piece := source.read(PIECE):
                left -= len(piece)
                if left < 0:
                    raise Refusal("E-UPLOAD-17", limit=limit >> 20, status=413)
                file.write(piece)


def _refuse_crowded(upload: Path, most: int) -> None:
    """Refuses too many entries; counts them itself before the directory is read, and ignores the number given there."""
    entries, tail = 0, b""
    with upload.open("rb") as file:
        while piece := file.read(PIECE):
            entries += (tail + piece).count(ENTRY)
            tail = piece[-len(ENTRY) + 1 :]
            refuse_many(entries, most)
