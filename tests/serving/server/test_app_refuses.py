"""The HTTP interface refuses wrong uploads before it translates, and its messages hold no identifiers."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from medgan.data.volume import Volume
from medgan.server.translate_upload import _without
from medgan.server.upload import Limits

pytestmark = pytest.mark.timeout(120)


def refusal_of(response):
    """Returns the status and the code of an answer."""
    return response.status_code, response.json()["code"]


def changed(folder, **values):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(header, keyword, value)
        header.save_as(path)


def two_patients(folder, put_series, volume):
    put_series(folder / "other", volume, PatientID="P2")


def two_series(folder, put_series, volume):
    put_series(folder / "other", volume)


def another_modality(folder, put_series, volume):
    changed(folder, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")


def two_modalities(folder, put_series, volume):
    shutil.copytree(folder / "one", folder / "two")
    another_modality(folder / "two", put_series, volume)
    changed(folder / "two", SeriesInstanceUID=generate_uid())


def a_missing_slice(folder, put_series, volume):
    put_series(folder / "more", replace(volume, array=np.repeat(volume.array, 2, axis=0)))
    (folder / "more" / "3.dcm").unlink()
    shutil.rmtree(folder / "one")


def no_dicom(folder, put_series, volume):
    for path in folder.rglob("*.dcm"):
        path.write_text("not a picture")


def a_cut_header(folder, put_series, volume):
    path = folder / "one" / "2.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"General Hospital") + 5])


def a_damaged_header(folder, put_series, volume):
    path = folder / "one" / "2.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"ISO_IR 100") - 3])


def a_synthetic_series(folder, put_series, volume):
    changed(folder, SyntheticData="YES")


def an_empty_file(folder, put_series, volume):
    (folder / "one" / "2.dcm").write_bytes(b"")


def a_series_without_positions(folder, put_series, volume):
    changed(folder, ImagePositionPatient=None)


def a_study_without_a_valid_name(folder, put_series, volume):
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        changed(folder, PatientID="P" * 70)
    finally:
        pydicom.config.settings.writing_validation_mode = None


def deflated(folder, put_series, volume):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        header.save_as(path)


@pytest.mark.parametrize(
    ("spoil", "status", "code", "values"),
    [
        (two_patients, 422, "E-UPLOAD-06", "6 PT slices in 2 series of 2 patients"),
        (two_series, 422, "E-UPLOAD-06", "6 PT slices in 2 series."),
        (another_modality, 422, "E-UPLOAD-06", "3 CT slices in 1 series."),
        (two_modalities, 422, "E-UPLOAD-06", "3 CT slices in 1 series, 3 PT slices in 1 series"),
        (a_missing_slice, 422, "E-UPLOAD-01", "PT: slice spacing"),
        (no_dicom, 422, "E-UPLOAD-03", "one PT series"),
        (a_cut_header, 422, "E-UPLOAD-04", "PT: 1 of 1 slices has no Study Instance UID"),
        (a_damaged_header, 422, "E-UPLOAD-07", "1 with: damaged DICOM header"),
        (a_synthetic_series, 422, "E-UPLOAD-05", "3 PT slices in 1 series"),
        (an_empty_file, 422, "E-UPLOAD-07", "1 with: empty"),
        (a_series_without_positions, 422, "E-UPLOAD-04", "3 of 3 slices have no Image Position (Patient)"),
        (a_study_without_a_valid_name, 422, "E-UPLOAD-01", "valid PatientID"),
        (deflated, 415, "E-UPLOAD-02", DeflatedExplicitVRLittleEndian.name),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_translate_request_refuses_upload_other_than_one_series(
    start, pet_folder, put_series, volume, spoil, status, code, values, zip_of
):
    client = start()
    spoil(pet_folder, put_series, volume)
    response = client.post(zip_of(pet_folder))
    assert refusal_of(response) == (status, code), response.text
    assert values in response.json()["detail"], response.text
    for secret in ("Eva", "P" * 70, "P1", "P2", str(client.scratch), volume.frame_of_reference):
        assert secret not in response.text


def test_translate_request_ignores_harmless_files_in_zip(start, pet_folder, zip_of, unzipped):
    client = start()
    header = pydicom.dcmread(pet_folder / "one" / "0.dcm")
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MediaStorageDirectoryStorage
    header.save_as(pet_folder / "DICOMDIR.dcm")
    (pet_folder / "read me.dcm").write_text("no image")
    shutil.copy(pet_folder / "one" / "0.dcm", pet_folder / "copy.dcm")
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 200 and len(unzipped(response)) == 3


@pytest.mark.parametrize(
    "text",
    ["of GRÜN^EVA", "of Grün", "of Eva", repr(["Grün^Eva"]), ascii("Grün^Eva"), r"of Gr\xfcn", r"of PET\\17", "17"],
)
def test_without_removes_every_form_of_patient_name(text):
    left = _without(text, ["Grün^Eva", "PET\\17"])
    assert "(withheld)" in left and not {"grün", "eva", "17"} & set(re.findall(r"\w+", left.lower()))


def test_without_keeps_words_that_contain_name():
    assert _without("Evaluation of slice 117", ["Eva", "17", ""]) == "Evaluation of slice 117"


def test_translate_request_refuses_empty_body_and_other_type(start):
    client = start()
    assert refusal_of(client.post(b"")) == (400, "E-UPLOAD-13")
    assert refusal_of(client.post(b"{}", "application/json")) == (415, "E-UPLOAD-12")
    assert client.get("/translate").status_code == 405


def test_translate_request_refuses_large_content_length(start, pet_folder, zip_of):
    client = start(Limits(body_bytes=100))
    response = client.post(zip_of(pet_folder))
    assert refusal_of(response) == (413, "E-UPLOAD-14")
    assert "at most 0 MiB" in response.json()["detail"]


def test_translate_request_refuses_pixels_above_limit_before_decoding(start, pet_folder, files_of):
    response = start(Limits(inflated_bytes=3 * 6 * 8 * 4 - 1)).post(content_type=None, files=files_of(pet_folder))
    assert refusal_of(response) == (413, "E-UPLOAD-08")
    assert "at most 0 MiB" in response.json()["detail"]


def test_translate_request_refuses_slices_too_large_on_network_grid(start, put_series, tmp_path, files_of):
    tiny = Volume(np.zeros((40, 2, 2), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]), generate_uid(), "SUV")
    put_series(tmp_path / "tiny", tiny)
    needed = 40 * 2 * 2 * 4 + 2 * 40 * 16 * 16 * 4
    body = {"content_type": None, "files": files_of(tmp_path / "tiny")}
    response = start(Limits(inflated_bytes=needed - 1)).post(**body)
    assert refusal_of(response) == (413, "E-UPLOAD-08")
    assert start(Limits(inflated_bytes=needed)).post(**body).status_code != 413
