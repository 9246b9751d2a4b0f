"""Files of a request are written as they were sent, and no body passes a limit, whatever its headers say."""

import asyncio
import io
import os
import struct
import zipfile
from dataclasses import replace

import pytest
from refusal import refusal

from medgan.server.upload import Limits, Refusal, receive, unpack

pytestmark = pytest.mark.unit

LIMITS = Limits(body_bytes=1 << 20, files=5, inflated_bytes=1 << 20)
FORM = "multipart/form-data; boundary=edge"


def multipart(*contents, name='name="f"; filename="../../etc/passwd"'):
    parts = [b"--edge\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n" + one for one in contents]
    return b"\r\n".join([*parts, b"--edge--\r\n"])


def zipped(*contents, names=None, method=zipfile.ZIP_DEFLATED):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        for number, content in enumerate(contents):
            archive.writestr(names[number] if names else f"{number}.dcm", content)
    return body.getvalue()


def take(folder, body, content_type, limits=LIMITS, piece=1000):
    """Receives and unpacks a body; returns the contents of the files in the order of their numbers."""

    async def pieces():
        for first in range(0, len(body), piece):
            yield body[first : first + piece]

    if asyncio.run(receive(pieces(), content_type, folder, limits=limits)):
        unpack(folder, limits)
    return [path.read_bytes() for path in sorted(folder.iterdir(), key=lambda path: int(path.stem))]


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "one" / "two"
    inside.mkdir(parents=True)
    yield inside
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*")} == {("one",), ("one", "two")}


CONTENTS = [b"DICM" * 700, b"", b"\r\n--edg\r\n" * 99, bytes(range(256)) * 9]


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_receive_keeps_parts_of_form_as_sent(folder, piece):
    assert take(folder, multipart(*CONTENTS), FORM, piece=piece) == CONTENTS


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unpack_keeps_files_of_zip_as_sent(folder, method):
    assert take(folder, zipped(*CONTENTS, method=method), "application/zip") == CONTENTS


@pytest.mark.parametrize("name", ["../../../outside.dcm", "/tmp/outside.dcm", "a/../../../b.dcm", "..\\..\\c.dcm"])
def test_unpack_ignores_names_that_lead_out_of_folder(folder, name):
    assert take(folder, zipped(b"x", names=[name]), "application/zip") == [b"x"]


@pytest.mark.parametrize(
    ("content_type", "status", "expected"),
    [
        ("", 415, refusal("E-UPLOAD-12", content_type="no type")),
        ("application/json", 415, refusal("E-UPLOAD-12", content_type="another type")),
        ("multipart/form-data", 400, refusal("E-UPLOAD-09")),
        (f"multipart/form-data; boundary={'x' * 999}", 400, refusal("E-UPLOAD-10")),
    ],
)
def test_receive_refuses_other_content_type(folder, content_type, status, expected):
    with pytest.raises(Refusal, check=expected) as refused:
        take(folder, b"body", content_type)
    assert refused.value.status == status


@pytest.mark.parametrize("content_type", [FORM, "application/zip"])
def test_receive_refuses_empty_body(folder, content_type):
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-13", num_bytes=0)) as refused:
        take(folder, b"", content_type)
    assert refused.value.status == 400


@pytest.mark.parametrize("content_type", [FORM, "application/zip"])
def test_receive_refuses_large_body_during_arrival(folder, content_type):
    body = multipart(os.urandom(2 << 20)) if content_type == FORM else zipped(os.urandom(2 << 20))
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-14", body_bytes=1)) as refused:
        take(folder, body, content_type)
    assert refused.value.status == 413
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1 << 20


def test_receive_refuses_form_without_end(folder):
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-11", num_files=len(CONTENTS))):
        take(folder, multipart(*CONTENTS)[:-20], FORM)


def test_receive_refuses_damaged_form(folder):
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-10")):
        take(folder, b"no boundary at all", FORM)


@pytest.mark.parametrize("make", [multipart, zipped])
def test_upload_of_too_many_files_is_refused(folder, make):
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-15", limit=5)) as refused:
        take(folder, make(*[b"x"] * 6), FORM if make is multipart else "application/zip")
    assert refused.value.status == 413


def test_unpack_refuses_zip_bomb_before_unpacking(folder):
    body = zipped(*[bytes(600 << 10)] * 3)
    assert len(body) < 10_000
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-17", limit=1)) as refused:
        take(folder, body, "application/zip")
    assert refused.value.status == 413
    assert sum(path.stat().st_size for path in folder.glob("*.dcm")) <= LIMITS.inflated_bytes


def test_unpack_refuses_zip_with_false_sizes(folder):
    body = bytearray(zipped(bytes(3 << 20)))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", body, body.index(signature) + offset, 10)
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-16")):
        take(folder, bytes(body), "application/zip")
    assert sum(path.stat().st_size for path in folder.glob("*.dcm")) <= LIMITS.inflated_bytes


def encrypted():
    body = bytearray(zipped(b"secret"))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        struct.pack_into("<H", body, body.index(signature) + offset, 1)
    return bytes(body)


@pytest.mark.parametrize(
    "body",
    [b"no zip file", zipped(*CONTENTS)[:-30], encrypted(), zipped(b"x" * 999, method=zipfile.ZIP_LZMA)],
    ids=["no zip", "cut", "encrypted", "lzma"],
)
def test_unpack_refuses_other_than_plain_zip(folder, body):
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-16")) as refused:
        take(folder, body, "application/zip")
    assert refused.value.status == 400


def test_unpack_refuses_zip_with_flipped_byte(folder):
    body = bytearray(zipped(bytes(range(256)) * 40, method=zipfile.ZIP_STORED))
    body[500] ^= 1
    with pytest.raises(Refusal, check=refusal("E-UPLOAD-16")):
        take(folder, bytes(body), "application/zip")


def test_limits_of_upload_are_inclusive(folder):
    contents = [bytes(100)] * 5
    limits = replace(LIMITS, inflated_bytes=500, body_bytes=len(zipped(*contents)))
    assert take(folder, zipped(*contents), "application/zip", limits) == contents
