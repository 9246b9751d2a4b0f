"""Bounds on what a header may say: a small file costs neither minutes nor gigabytes; the refusal has the value."""

import gzip
import io
import struct
import time

import gdcm
import hostile_dicom as hostile
import numpy as np
import pydicom
import pytest
from image_fixtures import write_series
from refusal import refusal

from medgan.data import unpack
from medgan.data.dicom import multiframe, structure
from medgan.data.dicom.code_stream import check_frames, size_of
from medgan.data.dicom.structure import check_structure
from medgan.data.reader import find_series, read_volume, survey
from medgan.data.unpack import opened
from medgan.errors import InputError

pytestmark = [pytest.mark.unit, pytest.mark.timeout(60)]
PRIVATE = 0x00191001


@pytest.fixture
def folder(tmp_path):
    return write_series(tmp_path, num=4)


@pytest.fixture
def content(folder):
    return sorted(folder.iterdir())[0].read_bytes()


def refused(content, what, most, value):
    began = time.monotonic()
    with pytest.raises(InputError, check=refusal("E-HEADER-02", what=what, most=most, value=value)):
        check_structure(content)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("in_front", [b"", hostile.element(PRIVATE, b"OB", hostile.PIXELS * 2)], ids=["plain", "decoy"])
def test_structure_refuses_too_many_items(content, in_front):
    check_structure(hostile.inserted(content, in_front + hostile.empty_items(structure.MOST_ITEMS)))
    bomb = hostile.inserted(content, in_front + hostile.empty_items(1_000_000))
    most = structure.MOST_ITEMS
    refused(bomb, "sequence items", most, most + 1)
    refused(hostile.deflated(bomb), "sequence items", most, most + 1)


def test_structure_refuses_too_many_elements(content):
    one = struct.pack("<HH2sH", 0x0019, 0x1001, b"LO", 0)
    most = structure.MOST_ELEMENTS
    refused(hostile.inserted(content, one * (most + 1)), "elements", most, most + 1)


def test_structure_refuses_too_many_sequences_in_each_other(content):
    check_structure(hostile.inserted(content, hostile.nested(structure.MOST_NESTED)))
    most = structure.MOST_NESTED
    refused(hostile.inserted(content, hostile.nested(1000)), "sequences in each other", most, most + 1)


def test_structure_refuses_too_much_once_inflated(content, monkeypatch):
    monkeypatch.setattr(structure, "INFLATED_BYTES", 8 << 20)
    check_structure(hostile.deflated(content, extra_mb=7))
    refused(hostile.deflated(content, extra_mb=12), "MiB once inflated", 8, 9)
    broken = hostile.deflated(content, extra_mb=12).replace(b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x00US")
    refused(broken, "MiB once inflated", 8, 9)


def test_structure_counts_what_implicit_and_big_endian_files_hold(content):
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.ReferencedImageSequence = [pydicom.Dataset() for _ in range(60)]
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2"):
        stream = io.BytesIO()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        pydicom.dcmwrite(stream, dataset, implicit_vr=syntax == "1.2.840.10008.1.2",
                         little_endian=syntax == "1.2.840.10008.1.2")  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(structure, "MOST_ITEMS", 59)
            refused(stream.getvalue(), "sequence items", 59, 60)


def test_large_private_element_is_not_read(folder, content, monkeypatch):
    monkeypatch.setattr(structure, "HEADER_BYTES", 1 << 20)
    large = hostile.element(0x00071001, b"OB", bytes(2 << 20))
    sorted(folder.iterdir())[0].write_bytes(hostile.begun_with(content, large))
    (reason,) = survey(folder).passed_over
    assert reason == "damaged DICOM header: expected at most 1 MiB before the pixels; it has more"


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"PixelSpacing": [1e-6, 2.0]}, "Pixel Spacing of 1e-06 mm (0.01 to 100)"),
        ({"PixelSpacing": [2.0, 5000.0]}, "Pixel Spacing of 5000 mm (0.01 to 100)"),
        ({"ImagePositionPatient": [0, 0, "-1e200"]}, "Image Position (Patient) of -1e+200 mm (at most 100000)"),
        ({"Rows": 65535}, "65535 Rows and 6 Columns (at most 16384)"),
    ],
    ids=["small spacing", "large spacing", "far away", "large image"],
)
def test_plane_refuses_what_no_scanner_makes(tmp_path, values, fault):
    surveyed = survey(write_series(tmp_path, **values))
    assert not surveyed.series
    assert fault in surveyed.problems[0].reason


def compressed(folder, syntax):
    (series,) = find_series(folder)
    for path in series.files:
        hostile.recode(path, hostile.SYNTAXES[syntax])
    return series.files[2]


@pytest.mark.parametrize("syntax", ["jpeg", "jpegls", "j2k"])
def test_frame_larger_than_header_is_refused_before_it_is_decoded(tmp_path, syntax):
    small = write_series(tmp_path / "small", patient="P1", pixels=np.zeros((17, 12), np.int16))
    large = write_series(tmp_path / "large", patient="P2", pixels=np.zeros((512, 384), np.int16))
    path, donor = compressed(small, syntax), compressed(large, syntax)
    assert size_of(hostile.frame_of(donor)) == (512, 384, 1)
    hostile.put_frame(path, hostile.frame_of(donor))
    (series,) = find_series(small)
    with pytest.raises(InputError, check=refusal("E-READ-08", size="17 x 12", found="512 x 384 x 1")):
        read_volume(series)


def test_size_of_is_none_where_a_frame_gives_none():
    for frame in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\x00"):
        assert size_of(frame) is None


@pytest.mark.parametrize("bits", [0, 1, 12, 60000])
def test_bits_allocated_of_no_image_are_refused(folder, bits):
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.BitsAllocated = bits
        dataset.save_as(path)
    dataset = pydicom.dcmread(path)
    with pytest.raises(InputError, check=refusal("E-READ-09", modality="CT", number=3, bits=bits)):
        check_frames(dataset, (5, 6), "CT", 3)


def test_frames_are_counted_before_their_groups_are_read(folder, content):
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.NumberOfFrames = 20_001
    with pytest.raises(InputError, check=refusal("E-FRAMES-02", num_frames=20_001, most=multiframe.MOST_FRAMES)):
        multiframe.check_num_frames(dataset, lambda: 1 << 30)
    dataset.NumberOfFrames = 20_000
    with pytest.raises(
        InputError, check=refusal("E-FRAMES-03", num_frames=20_000, needed=20_000 * 60, file_bytes=5120)
    ):
        multiframe.check_num_frames(dataset, lambda: 5120)
    dataset.Rows = 0
    with pytest.raises(InputError, check=refusal("E-FRAMES-03", num_frames=20_000, needed=20_000, file_bytes=5120)):
        multiframe.check_num_frames(dataset, lambda: 5120)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(gdcm.TransferSyntax(hostile.SYNTAXES["rle"]).GetString())
    multiframe.check_num_frames(dataset, lambda: 20_000 * 8)


def test_frames_whose_headers_are_too_large_together_are_refused(content):
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.NumberOfFrames = 2000
    dataset.PerFrameFunctionalGroupsSequence = [pydicom.Dataset() for _ in range(2000)]
    block = dataset.private_block(0x0019, "X", create=True)
    for number in range(200):
        block.add_new(number, "LO", "")
    assert len(multiframe.frame_headers(dataset)) == 2000
    for tag in range(0x00210000, 0x00210000 + 2000):
        dataset.add_new(tag, "LO", "")
    began = time.monotonic()
    with pytest.raises(InputError, check=refusal("E-FRAMES-04", num_frames=2000, most=multiframe.MOST_ELEMENTS)):
        multiframe.frame_headers(dataset)
    assert time.monotonic() - began < 5


ONE = struct.pack("<HH2sH", 0x0019, 0x1001, b"LO", 0)
MANY = ONE * (structure.MOST_ELEMENTS + 1)


def long_meta(content):
    """A file with 2 kB of File Meta Information in front of the transfer syntax."""
    more = struct.pack("<HH2sH", 2, 3, b"LO", 2000) + bytes(2000)
    return content[:144] + more + content[144:]


@pytest.mark.parametrize(
    "hidden",
    [
        lambda content: hostile.inserted(content, MANY).replace(content[140:144], b"\xff\xff\xff\x7f", 1),
        lambda content: hostile.inserted(content, MANY).replace(
            b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0", 1
        ),
        lambda content: content + MANY,
        lambda content: long_meta(hostile.deflated(hostile.inserted(content, MANY))),
    ],
    ids=["length of the meta", "implicit by name", "behind the pixels", "deflated, with much meta"],
)
def test_structure_counts_what_pydicom_reads(content, hidden):
    bomb = hidden(content)
    most = structure.MOST_ELEMENTS
    assert len(pydicom.dcmread(io.BytesIO(hidden(content).replace(MANY, ONE * 30)))) >= 20
    refused(bomb, "elements", most, most + 1)


def test_structure_of_compressed_pixels_is_left_alone(tmp_path):
    folder = write_series(tmp_path, pixels=np.zeros((17, 12), np.int16))
    path = compressed(folder, "jpegls")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "MOST_ITEMS", 0)
        check_structure(path.read_bytes())


def test_size_of_is_found_behind_any_box():
    frame = hostile.CRASHES[0].read_bytes()
    assert size_of(b"box" * 1000 + frame) == size_of(frame) != None  # noqa: E711 - one comparison


def test_header_that_takes_long_is_refused_whatever_it_holds(folder, content, monkeypatch):
    monkeypatch.setattr(structure, "HEADER_S", 0.2)
    monkeypatch.setattr(structure, "MOST_ELEMENTS", 10_000_000)
    sorted(folder.iterdir())[0].write_bytes(hostile.begun_with(content, MANY))
    began = time.process_time()
    (reason,) = survey(folder).passed_over
    assert reason == "damaged DICOM header: reading its header takes more than 0.2 s"
    assert time.process_time() - began < 5


def test_a_bomb_of_gzip_is_unpacked_to_the_limit_only(tmp_path, monkeypatch):
    (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    with opened(tmp_path / "a.dcm.gz") as file:
        assert unpack.size_of(file) == 1 << 20
    monkeypatch.setattr(unpack, "LARGEST_BYTES", 1 << 10)
    with opened(tmp_path / "a.dcm.gz") as file:
        assert unpack.size_of(file) == 1 << 10
