"""Reading a file of any bytes gives a result or an InputError, within a deadline."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.reader import read_volume, representative_headers, survey
from medgan.errors import InputError

NUM_EXAMPLES = int(os.environ.get("MEDGAN_FUZZ_EXAMPLES", "200"))
DEADLINE_MS = 20_000
FUZZ = settings(
    max_examples=NUM_EXAMPLES // 2, deadline=DEADLINE_MS, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
GARBAGE = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([b"", b"\\", b"\\\\\\", b"NaN", b"inf\\inf\\inf", b"-1", b"1e400\\1", b"1.2.3", b"\xff" * 8]),
)
BYTES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Two patients: one as classic series, one with its CT in one enhanced file."""
    folder = write_phantoms(tmp_path_factory.mktemp("fuzz") / "dicom", patients=2, slices=3, matrix=16)
    _enhance(folder / "PHANTOM-0002" / "CT")
    return folder


def _enhance(folder):
    paths = sorted(folder.iterdir())
    slices = [dcmread(path) for path in paths]
    whole, shared = slices[0].copy(), Dataset()
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    shared.PlaneOrientationSequence = [_only(whole, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_only(whole, "PixelSpacing")]
    shared.PixelValueTransformationSequence = [_only(whole, "RescaleSlope", "RescaleIntercept")]
    frames = [Dataset() for _ in slices]
    for frame, one in zip(frames, slices, strict=True):
        frame.PlanePositionSequence = [_only(one, "ImagePositionPatient")]
    del whole.ImagePositionPatient, whole.ImageOrientationPatient, whole.PixelSpacing
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], frames
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(one.PixelData for one in slices)
    for path in paths:
        path.unlink()
    whole.save_as(folder / "all.dcm")


def _only(header, *keywords):
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, header[keyword].value)
    return item


def read_all(folder):
    """Reads everything that a job reads from a folder."""
    try:
        series = survey(folder).series
    except InputError:
        return
    for one in series:
        try:
            read_volume(one)
        except InputError as error:
            assert str(folder) not in str(error)
        else:
            representative_headers(one)


def with_one_file_changed(originals, number, change):
    """Reads a copy of a patient in which one file was changed."""
    files = sorted(originals.rglob("*.dcm"))
    file = files[number % len(files)]
    patient = file.parents[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(patient, Path(name) / "dicom"))
        change(folder / file.relative_to(patient))
        read_all(folder)


@FUZZ
@given(number=st.integers(0, 100), changes=BYTES, keep=st.one_of(st.none(), st.floats(0, 1)), head=st.booleans())
def test_reader_of_flipped_or_cut_bytes_gives_result_or_input_error(originals, number, changes, keep, head):
    def change(path):
        content = bytearray(path.read_bytes())
        last = min(len(content), 2500 if head else len(content)) - 1
        for place, value in changes:
            content[int(place * last)] = value
        path.write_bytes(content[: len(content) if keep is None else int(keep * len(content))])

    with_one_file_changed(originals, number, change)


@FUZZ
@given(number=st.integers(0, 100), places=st.lists(st.tuples(st.integers(0, 200), st.one_of(st.none(), GARBAGE)),
                                                   min_size=1, max_size=4))  # fmt: skip
def test_reader_of_garbage_attributes_gives_result_or_input_error(originals, number, places):
    with_one_file_changed(originals, number, lambda path: path.write_bytes(_with_garbage(path.read_bytes(), places)))


def _with_garbage(content, places):
    """Returns the file with some elements of its dataset (explicit VR) removed (None) or with other bytes as value."""
    elements, position = [], 132
    while position < len(content):
        long = content[position + 4 : position + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        start = position + (12 if long else 8)
        length = int.from_bytes(content[start - (4 if long else 2) : start], "little")
        if length == 0xFFFFFFFF:
            break
        elements.append([content[position : position + (8 if long else 6)], content[start : start + length], long])
        position = start + length
    rest = content[position:]
    for place, value in places:
        index = place % len(elements)
        elements[index] = None if value is None else _other(elements[index], value)
        elements = [element for element in elements if element is not None]
    body = b"".join(head + len(value).to_bytes(4 if long else 2, "little") + value for head, value, long in elements)
    return content[:132] + body + rest


def _other(element, value):
    head, _, long = element
    return [head, value + b" " * (len(value) % 2), long]
