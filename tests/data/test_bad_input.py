"""Tables of mistakes in the input, each with the refusal, the problem or the count that reports it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage
from refusal import refusal

from medgan.data.reader import find_series, read_volume, survey
from medgan.errors import InputError

pytestmark = pytest.mark.unit


class Row(NamedTuple):
    """One mistake: its name, a function that makes it in a patient's folder, and how it is reported."""

    name: str
    make: Callable[[Path], object]
    expected: object


def edit(series, change, only=None):
    """Makes a mistake in the headers of a series: in every slice, or in the slices with these numbers."""

    def make(folder):
        for number, path in enumerate(sorted((folder / series).iterdir())):
            if only is None or number in only:
                header = dcmread(path)
                change(header, number)
                header.save_as(path)

    return make


def put(**values):
    """Sets attributes; `None` deletes one."""

    def change(header, number):
        for keyword, value in values.items():
            if value is None:
                delattr(header, keyword)
            else:
                setattr(header, keyword, value(number) if callable(value) else value)

    return change


def first_file(series, make):
    return lambda folder: make(min((folder / series).iterdir()))


def no_injection(header, number):
    header.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = ""


def nan_pixels(header, number):
    pixels = header.pixel_array.astype(np.float32)
    pixels[0, 0] = np.nan
    header.FloatPixelData = pixels.tobytes()
    header.BitsAllocated = 32
    del header.PixelData, header.BitsStored, header.HighBit, header.PixelRepresentation


def constant_pixels(header, number):
    header.PixelData = bytes(len(header.PixelData))


def color(header, number):
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0


def one_uid(folder):
    """A second, shifted series with the UID of the first."""
    shutil.copytree(folder / "CT", folder / "CT again")
    edit("CT again", put(SOPInstanceUID=lambda number: f"1.2.3.{number + 1}"))(folder)


def stretched(number):
    return [-176.0, -176.0, 4.0 * number + (0.25 if number == 3 else 0)]


def keep_one(folder):
    for path in sorted((folder / "CT").iterdir())[1:]:
        path.unlink()


def swap(header, number):
    header.Modality = {"CT": "PT", "PT": "CT"}[header.Modality]
    header.Units = "GML"


TURNED = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
UNDECODED = "CT: the pixels of slice 0, in the transfer syntax Explicit VR Little Endian, could not be decoded"
NO_NUMBER = "PT: Rescale Slope or Rescale Intercept of slice 1 could not be read as a number"
REFUSED = [
    Row("cut in the pixels", first_file("CT", lambda path: os.truncate(path, 2000)),
        refusal("E-HEADER-01", message=UNDECODED, name="ValueError")),
    Row("no Rescale Slope", edit("CT", put(RescaleSlope=None)),
        refusal("E-READ-05", modality="CT", number=0, units="HU")),
    Row("no number as Rescale Slope", edit("PT", put(RescaleSlope=[1, 2]), {1}),
        refusal("E-HEADER-01", message=NO_NUMBER)),
    Row("weight of two numbers", edit("PT", put(PatientWeight=[70, 71])),
        refusal("E-SUV-10", keyword="PatientWeight", value="another text")),
    Row("no weight", edit("PT", put(PatientWeight=None)),
        refusal("E-SUV-10", keyword="PatientWeight", value="None")),
    Row("no injection time", edit("PT", no_injection),
        refusal("E-SUV-09", name="Radiopharmaceutical Start Time")),
    Row("no attenuation correction", edit("PT", put(CorrectedImage=["DECY"])), refusal("E-SUV-04", names="DECY")),
    Row("no decay correction", edit("PT", put(DecayCorrection="NONE")), refusal("E-SUV-06", correction="NONE")),
    Row("NaN pixels", edit("CT", nan_pixels),
        refusal("E-PLAUSIBLE-01", modality="CT", num_wrong=6, array_size=13824)),
    Row("constant pixels", edit("PT", constant_pixels), refusal("E-PLAUSIBLE-02", modality="PT", low=0.0)),
    Row("HU out of range", edit("CT", put(RescaleIntercept=9000)), refusal("E-PLAUSIBLE-03")),
    Row("CT without rescaling to HU", edit("CT", put(RescaleSlope=0.01, RescaleIntercept=0)),
        refusal("E-PLAUSIBLE-03")),
    Row("varying spacing", edit("CT", put(ImagePositionPatient=stretched)),
        refusal("E-GEOMETRY-04", modality="CT", lowest=3.75, highest=4.25, hint="")),
    Row("missing slice", lambda folder: sorted((folder / "CT").iterdir())[2].unlink(),
        refusal("E-GEOMETRY-04", modality="CT", lowest=4.0, highest=8.0, hint="; a slice seems to be missing")),
    Row("Rescale Type of a material", edit("CT", put(RescaleType="MGML")),
        refusal("E-READ-07", modality="CT", number=0, kind="MGML")),
    Row("one slice", keep_one, refusal("E-GEOMETRY-01", modality="CT", num_planes=1)),
]  # fmt: skip
PROBLEMS = [
    Row("cut in the header", first_file("CT", lambda path: os.truncate(path, 700)),
        "CT: 1 of 1 slices has no Study Instance UID, 1 of 1 has no Series Instance UID"),
    Row("a name as Modality", edit("CT", put(Modality="MARIJKE_4815162", PixelSpacing=None)),
        "another text: 6 of 6 slices have no Pixel Spacing"),
    Row("no Pixel Spacing", edit("PT", put(PixelSpacing=None), {1}), "PT: 1 of 5 slices has no Pixel Spacing"),
    Row("Pixel Spacing of 0", edit("CT", put(PixelSpacing=[0, 0])), "CT: 6 of 6 slices have an invalid Pixel Spacing"),
    Row("no position", edit("CT", put(ImagePositionPatient=None), {0, 2, 4}),
        "CT: 3 of 6 slices have no Image Position (Patient)"),
    Row("CT called PET", edit("CT", swap),
        "PT: 6 of 6 slices have the Modality PT although the SOP Class is that of CT images"),
    Row("PET called CT", edit("PT", swap),
        "CT: 5 of 5 slices have the Modality CT although the SOP Class is that of PT images"),
    Row("no orientation", edit("CT", put(ImageOrientationPatient=None)),
        "CT: 6 of 6 slices have no Image Orientation (Patient)"),
    Row("orientation of one axis", edit("CT", put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
        "CT: 6 of 6 slices have an invalid Image Orientation (Patient)"),
]  # fmt: skip
PASSED_OVER = [
    Row("empty file", first_file("CT", lambda path: path.write_bytes(b"")), "empty file: 1"),
    Row("text", lambda folder: (folder / "notes").write_text("7 " * 999), "not DICOM: 1"),
    Row("noise behind DICM", first_file("CT", lambda path: path.write_bytes(bytes(128) + b"DICM" + b"\xff" * 99)),
        "damaged DICOM header: 1"),
    Row("screen shots", edit("CT", color), "secondary capture: 6"),
    Row("colors in a CT", edit("CT", put(SamplesPerPixel=3)), "color: 6"),
    Row("copies", lambda folder: shutil.copytree(folder / "CT", folder / "copy"), "same slice twice: 6"),
    Row("copies under other UIDs", one_uid, "same slice twice: 6"),
    Row("a turned slice", edit("CT", put(ImageOrientationPatient=TURNED), {5}), "scout inside a series: 1"),
    Row("a link in a circle", lambda folder: (folder / "CT" / "up").symlink_to(folder),
        "link in a circle or broken: 1"),
    Row("a link to itself", lambda folder: (folder / "self").symlink_to(folder / "self"),
        "link in a circle or broken: 1"),
    Row("a pipe", lambda folder: os.mkfifo(folder / "pipe"), "no regular file: 1"),
]  # fmt: skip


def read_all(folder):
    """Reads position and voxels of every series, which must have no problems; returns the survey."""
    found = survey(folder)
    assert not found.problems
    for series in found.series:
        _ = series.affine
        read_volume(series)
    return found


def holds_identifier(text, folder):
    return "PHANTOM" in text or "2.25" in text or str(folder) in text


@pytest.fixture
def patient(phantoms, tmp_path):
    return Path(shutil.copytree(phantoms / "PHANTOM-0001", tmp_path / "PHANTOM-0001"))


@pytest.fixture
def mistaken(patient, row):
    """The patient's folder with one mistake in it; without the mistake the reader reports nothing."""
    assert not read_all(patient).passed_over
    row.make(patient)
    return patient


def by_name(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


@by_name(REFUSED)
def test_read_volume_refuses_mistake_with_code_and_values(mistaken, row):
    with pytest.raises(InputError, check=row.expected) as caught:
        read_all(mistaken)
    assert not holds_identifier(str(caught.value), mistaken)


@by_name(PROBLEMS)
def test_survey_reports_mistake_as_problem_of_patient(mistaken, row):
    (problem,) = survey(mistaken).problems
    assert problem.reason.startswith(row.expected)
    assert not holds_identifier(problem.reason, mistaken)


@by_name(PASSED_OVER)
def test_survey_counts_mistake_as_passed_over(mistaken, row):
    counts = [f"{reason}: {count}" for reason, count in survey(mistaken).passed_over.items()]
    assert counts == [row.expected]
    assert not holds_identifier(counts[0], mistaken)


@pytest.mark.parametrize("name", ["with some spaces", "emoji 🧠", "ümläut", "-rf", "new\nline"])
def test_find_series_reads_folder_with_odd_name(patient, name):
    odd = patient.rename(patient.with_name(name))
    (odd / "CT" / "0001.dcm").rename(odd / "CT" / f"{name} 1")
    assert [len(read_volume(series).array) for series in find_series(odd)] == [6, 5]


@pytest.mark.parametrize(
    ("character_set", "patient_id"),
    [
        ("ISO_IR 192", "Müller-山"),
        ("ISO_IR 100", "Müller"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 166", "นามสกุล"),
        (["", "ISO 2022 IR 87"], "山田"),  # seven bits a byte, between escapes
    ],
)
def test_patient_id_is_read_in_specific_character_set(patient, character_set, patient_id):
    edit("CT", put(SpecificCharacterSet=character_set, PatientID=patient_id))(patient)
    assert patient_id in {series.patient_id for series in find_series(patient)}


def test_find_series_reads_files_of_unknown_character_set(patient):
    for path in (patient / "CT").iterdir():
        header = dcmread(path)
        header.SpecificCharacterSet = "ISO_IR 100"
        header.PatientID = "Müller"
        header.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    assert {len(series.files) for series in find_series(patient)} == {5, 6}


def test_survey_counts_files_and_folders_without_read_permission(patient):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (patient / "PT").chmod(0)
    (patient / "CT" / "0001.dcm").chmod(0)
    try:
        assert survey(patient).passed_over == {"unreadable (permission)": 2}
    finally:
        (patient / "PT").chmod(0o700)
