"""Opens what is packed in a file: gzip, zip, the compressed text of PNG."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from medgan.data import unpack

MAX_DEPTH = 3  # of archives inside archives
MAX_TEXT_BYTES = 1 << 24  # of one compressed text
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
UNREADABLE = (*unpack.UNREADABLE, struct.error)
"""`layers` raises these where a file is damaged, encrypted or packed in an unknown way."""


def layers(stream: IO[bytes], depth: int = 0) -> Iterator[IO[bytes]]:
    """Yields the stream itself, then what is packed in it, up to three archives deep; read each before the next.

    Args:
        stream: seekable stream, at its start.
        depth: number of archives around the stream.

    Raises:
        UNREADABLE: the stream is damaged, encrypted or packed in an unknown way.
    """
    start = stream.read(len(PNG_SIGNATURE))
    stream.seek(0)
    yield stream
    stream.seek(0)
    if start == PNG_SIGNATURE:
        yield from _png_texts(stream)
    elif depth == MAX_DEPTH:
        return
    elif start.startswith(b"\x1f\x8b"):
        with io.BufferedReader(gzip.GzipFile(fileobj=stream)) as unpacked:
            yield from layers(unpacked, depth + 1)
    elif start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                with archive.open(member) as unpacked_member:
                    yield from layers(unpacked_member, depth + 1)


def _png_texts(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yields the compressed texts of a PNG, from chunks zTXt and iTXt (ISO/IEC 15948, 11.3.4)."""
    stream.seek(len(PNG_SIGNATURE))
    while len(header := stream.read(8)) == 8:
        length, chunk = struct.unpack(">I4s", header)
        content = stream.read(length)
        stream.seek(4, io.SEEK_CUR)  # the checksum
        _, _, rest = content.partition(b"\0")
        if chunk == b"zTXt":
            packed = rest[1:]  # after the method
        elif chunk == b"iTXt" and rest[:1] == b"\1":
            packed = rest[2:].split(b"\0", 2)[2]  # after flag, method, language and translated keyword
        else:
            continue
        yield io.BytesIO(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES))
