"""`layers` opens the content that is packed in a file."""

import gzip
import io
import struct
import zipfile
import zlib

import pytest

from medgan.deid.packed_files import PNG_SIGNATURE, UNREADABLE, layers

pytestmark = pytest.mark.unit


def opened(content):
    return [layer.read() for layer in layers(io.BytesIO(content))]


def zipped(content, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("folder/member", content)
        archive.writestr("empty", b"")
    return buffer.getvalue()


def png(*chunks):
    def packed(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return PNG_SIGNATURE + b"".join(packed(*chunk) for chunk in [*chunks, (b"IEND", b"")])


@pytest.mark.parametrize("content", [b"", b"plain", b"PK", b"\x00" * 200])
def test_layers_of_plain_file_are_one_layer(content):
    assert opened(content) == [content]


def test_layers_open_gzip():
    assert opened(gzip.compress(b"inside")) == [gzip.compress(b"inside"), b"inside"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_layers_open_each_member_of_zip(method):
    assert opened(zipped(b"inside", method))[1:] == [b"inside", b""]


def test_layers_open_nested_archives_to_three_deep():
    three = zipped(gzip.compress(zipped(b"inside")))
    assert b"inside" in opened(three)
    assert b"inside" not in opened(gzip.compress(three))


def test_layers_open_compressed_texts_of_png():
    texts = png(
        (b"tEXt", b"Author\0plain"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"first")),
        (b"iTXt", b"Title\0\1\0en\0Titel\0" + zlib.compress(b"second")),
        (b"iTXt", b"Title\0\0\0en\0Titel\0plain"),
    )
    assert opened(texts) == [texts, b"first", b"second"]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"inside" * 1000)[:-20],
        b"\x1f\x8bno gzip at all",
        zipped(b"inside")[:-30],
        b"PK\x03\x04no zip at all",
        png((b"zTXt", b"Comment\0\0no zlib")),
        png((b"iTXt", b"Title\0\1\0")),
    ],
)
def test_layers_of_damaged_file_raise_unreadable_error(content):
    with pytest.raises(UNREADABLE):
        opened(content)
