"""What people hand in by mistake, and what they read then: a table."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from medgan.data.reader import find_series, read_volume, survey
from medgan.errors import InputError

NO_HU = r"CT: expected HU, about -1000 in air"


class Row(NamedTuple):
    """One mistake: what it is, how it is made of a patient's folder, where it shows, and what is read there."""

    name: str
    make: Callable[[Path], object]
    where: str
    message: str


def edit(series, change, only=None):
    """Makes a mistake in the headers of a series: of every slice or of those named by their numbers."""

    def make(folder):
        for number, path in enumerate(sorted((folder / series).iterdir())):
            if only is None or number in only:
                header = dcmread(path)
                change(header, number)
                header.save_as(path)

    return make


def put(**values):
    """Sets attributes; `None` takes one away."""

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
    return [-176.0, -176.0, 4.0 * number + (0.2 if number == 3 else 0)]


def keep_one(folder):
    for path in sorted((folder / "CT").iterdir())[1:]:
        path.unlink()


def swap(header, number):
    header.Modality = {"CT": "PT", "PT": "CT"}[header.Modality]
    header.Units = "GML"


TURNED = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
TABLE = [
    Row("empty file", first_file("CT", lambda path: path.write_bytes(b"")), "passed over", "empty file: 1"),
    Row("text", lambda folder: (folder / "notes").write_text("7 " * 999), "passed over", "not DICOM: 1"),
    Row("cut in the header", first_file("CT", lambda path: os.truncate(path, 700)), "problem",
        "CT: 1 of 1 slices has no Study Instance UID, 1 of 1 has no Series Instance UID"),
    Row("cut in the pixels", first_file("CT", lambda path: os.truncate(path, 2000)), "volume",
        "CT: expected pixels that pydicom can decode; slice 0 .* fails with ValueError"),
    Row("noise behind DICM", first_file("CT", lambda path: path.write_bytes(bytes(128) + b"DICM" + b"\xff" * 99)),
        "passed over", "damaged DICOM header: 1|no CT, MR or PET image: 1"),
    Row("no Rescale Slope", edit("CT", put(RescaleSlope=None)), "volume", "CT: slice 0 has no Rescale Slope; HU needs"),
    Row("no number as Rescale Slope", edit("PT", put(RescaleSlope=[1, 2]), {1}), "volume",
        "PT: expected Rescale Slope and Intercept as numbers; reading those of slice 1 fails with"),
    Row("weight of two numbers", edit("PT", put(PatientWeight=[70, 71])), "volume",
        "PT: PatientWeight is another text; SUV needs a number"),
    Row("a name as Modality", edit("CT", put(Modality="MARIJKE_4815162", PixelSpacing=None)), "problem",
        "^another text: 6 of 6 slices have no Pixel Spacing"),
    Row("no Pixel Spacing", edit("PT", put(PixelSpacing=None), {1}), "problem",
        "PT: 1 of [56] slices has no Pixel Spacing"),
    Row("Pixel Spacing of 0", edit("CT", put(PixelSpacing=[0, 0])), "problem",
        "CT: 6 of 6 slices have an invalid Pixel Spacing"),
    Row("no position", edit("CT", put(ImagePositionPatient=None), {0, 2, 4}), "problem",
        r"CT: 3 of 6 slices have no Image Position \(Patient\)"),
    Row("no orientation", edit("CT", put(ImageOrientationPatient=None)), "problem",
        r"CT: 6 of 6 slices have no Image Orientation \(Patient\)"),
    Row("orientation of one axis", edit("CT", put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])), "problem",
        r"CT: 6 of 6 slices have an invalid Image Orientation \(Patient\)"),
    Row("mixed orientations", edit("CT", put(ImageOrientationPatient=TURNED), {3}), "affine",
        "CT: slice orientations .*; expected one orientation"),
    Row("no weight", edit("PT", put(PatientWeight=None)), "volume", "PT: PatientWeight is None; SUV needs a number"),
    Row("no injection time", edit("PT", no_injection), "volume", "PT: Radiopharmaceutical Start Time is missing"),
    Row("no attenuation correction", edit("PT", put(CorrectedImage=["DECY"])), "volume",
        r"PT: expected images corrected for attenuation \(ATTN\), got DECY"),
    Row("no decay correction", edit("PT", put(DecayCorrection="NONE")), "volume",
        "PT: expected Decay Correction START or ADMIN, got NONE"),
    Row("NaN pixels", edit("CT", nan_pixels), "volume", "CT: 6 of 13824 pixels are NaN or infinite"),
    Row("constant pixels", edit("PT", constant_pixels), "volume", r"PT: every pixel is 0\.0; expected an image"),
    Row("HU out of range", edit("CT", put(RescaleIntercept=9000)), "volume", NO_HU),
    Row("CT without rescaling to HU", edit("CT", put(RescaleSlope=0.01, RescaleIntercept=0)), "volume", NO_HU),
    Row("CT called PET", edit("CT", swap), "volume", "PT: expected SUV, about 1"),
    Row("PET called CT", edit("PT", swap), "volume", NO_HU),
    Row("varying spacing", edit("CT", put(ImagePositionPatient=stretched)), "affine",
        "CT: slice spacing varies from 3.80 to 4.20 mm; expected one spacing within 1%"),
    Row("missing slice", lambda folder: sorted((folder / "CT").iterdir())[2].unlink(), "affine",
        "CT: slice spacing varies from 4.00 to 8.00 mm; .*; a slice seems to be missing"),
    Row("two series with one UID", one_uid, "affine", "CT: 2 slices lie at one place; expected one"),
    Row("one slice", keep_one, "affine", "CT: expected at least 2 slices, got 1"),
    Row("screen shots", edit("CT", color), "passed over", "secondary capture: 6"),
    Row("colors in a CT", edit("CT", put(SamplesPerPixel=3)), "passed over", "color: 6"),
    Row("copies", lambda folder: shutil.copytree(folder / "CT", folder / "copy"), "passed over", "same slice twice: 6"),
    Row("a link in a circle", lambda folder: (folder / "CT" / "up").symlink_to(folder), "passed over",
        "link in a circle or broken: 1"),
    Row("a link to itself", lambda folder: (folder / "self").symlink_to(folder / "self"), "passed over",
        "link in a circle or broken: 1"),
    Row("a pipe", lambda folder: os.mkfifo(folder / "pipe"), "passed over", "no regular file: 1"),
]  # fmt: skip


def said(folder, where):
    """What is read in that place of a folder, as one text."""
    found = survey(folder)
    if where == "problem":
        return "\n".join(problem.reason for problem in found.problems)
    if where == "passed over":
        return "\n".join(f"{reason}: {count}" for reason, count in found.passed_over.items())
    assert not found.problems
    messages = []
    for series in found.series:
        try:
            _ = series.affine if where == "affine" else read_volume(series)
        except InputError as error:
            messages.append(str(error))
    return "\n".join(messages)


@pytest.fixture
def patient(phantoms, tmp_path):
    return Path(shutil.copytree(phantoms / "PHANTOM-0001", tmp_path / "PHANTOM-0001"))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_mistake_is_named(patient, row):
    assert said(patient, row.where) in ("", "not DICOM: 1"), "nothing is wrong at first"
    row.make(patient)
    text = said(patient, row.where)
    with pytest.raises(InputError, match=row.message):
        raise InputError(text)
    assert "PHANTOM" not in text and "2.25" not in text and str(patient) not in text


@pytest.mark.parametrize("name", ["with some spaces", "emoji 🧠", "ümläut", "-rf", "new\nline"])
def test_odd_names_of_folders_work(patient, name):
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
def test_a_patient_id_is_read_in_its_character_set(patient, character_set, patient_id):
    edit("CT", put(SpecificCharacterSet=character_set, PatientID=patient_id))(patient)
    assert patient_id in {series.patient_id for series in find_series(patient)}


def test_an_unknown_character_set_does_not_stop_anything(patient):
    for path in (patient / "CT").iterdir():
        header = dcmread(path)
        header.SpecificCharacterSet = "ISO_IR 100"
        header.PatientID = "Müller"
        header.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    assert {len(series.files) for series in find_series(patient)} == {5, 6}


def test_what_may_not_be_read_is_counted(patient):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (patient / "PT").chmod(0)
    (patient / "CT" / "0001.dcm").chmod(0)
    try:
        assert survey(patient).passed_over == {"unreadable (permission)": 2}
    finally:
        (patient / "PT").chmod(0o700)
