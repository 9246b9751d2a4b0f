"""Without known values, `find_identifiers` finds UIDs, DICOM files and files that cannot be searched."""

import gzip
import json
import os

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from refusal import refusal

from medgan.deid.find_identifiers import Scan, find_identifiers
from medgan.errors import InputError

pytestmark = pytest.mark.unit

UID = "1.2.826.0.1.3680043.2.1125.1.7834"


def test_find_identifiers_finds_nothing_in_clean_folder(output):
    (output / "dataset.json").write_text(json.dumps({"medgan": "0.1.0", "values": np.random.rand(1000).tolist()}))
    (output / "versions.txt").write_text("torch 2.11.0.1.2, 1.2.3.4.5.6, 127.0.0.1, 1.2.840.10008.5.1.4.1.1.2, 2.25.7")
    (output / "empty.log").touch()
    np.save(output / "source.npy", np.arange(10_000, dtype=np.int16))
    assert find_identifiers(output) == Scan(findings=[], num_files=4, num_values=0, num_unread=0)


@pytest.mark.parametrize(
    "uid", [UID, "2.25.329800735698586629295641978511506172918", "1.3.12.2.1107.5.1.4.24573", str(generate_uid())]
)
@pytest.mark.parametrize("around", ["{}", '{{"series": "{}"}}', "2026{}.", "path/{}/x", "\x00\x01{}\x00"])
def test_find_identifiers_finds_unknown_uid(output, uid, around, found):
    (output / "run.log").write_text(around.format(uid))
    assert found(output) == [("run.log", "UID")]


def test_find_identifiers_lists_identifying_attributes_of_dicom_header(output, make_series, found):
    make_series(output / "deep", num=1, patient="X1", PatientName="A^B", PatientBirthDate="", AccessionNumber="7")
    assert found(output) == [("deep/CT-001", "DICOM file with Accession Number, Patient ID, Patient's Name, UID")]


def test_find_identifiers_ignores_empty_and_dummy_header_values(output, make_series, found):
    make_series(output, num=1, patient="ANONYMOUS", PatientName="", ReferringPhysicianName="None", StudyID="7")
    assert found(output) == [("CT-001", "DICOM file with Study ID, UID")]


def test_find_identifiers_tolerates_invalid_number_in_header(output, make_series, found):
    make_series(output, num=1)
    header = pydicom.dcmread(output / "CT-001")
    header.add_new("SliceThickness", "DS", "")
    header["SliceThickness"]._value = "thick"
    header.save_as(output / "CT-001")
    assert found(output) == [("CT-001", "DICOM file with Patient ID, UID")]


def test_find_identifiers_reports_every_phantom_file(phantoms):
    scan = find_identifiers(phantoms / "PHANTOM-0001")
    assert scan.num_files == len(scan.findings) > 6
    assert {one.what for one in scan.findings} == {"DICOM file with Patient ID, Patient's Name, Study ID, UID"}


def test_find_identifiers_searches_linked_folder_once(output, tmp_path, found):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run.log").write_text(UID)
    (output / "link").symlink_to(tmp_path / "elsewhere")
    (output / "round").symlink_to(output)
    assert found(output) == [("link/run.log", "UID")]


def test_find_identifiers_reports_archive_that_cannot_be_opened(output, found):
    (output / "damaged.gz").write_bytes(gzip.compress(os.urandom(1000))[:500])
    (output / "damaged.zip").write_bytes(b"PK\x03\x04 and nothing more")
    assert found(output) == [
        (name, "not searched to its end: damaged, encrypted or not readable") for name in ("damaged.gz", "damaged.zip")
    ]


def test_find_identifiers_refuses_missing_folder(output, tmp_path):
    with pytest.raises(InputError, check=refusal("E-DEID-01", folder=tmp_path / "missing")):
        find_identifiers(tmp_path / "missing")
    with pytest.raises(InputError, check=refusal("E-DEID-02", folder=tmp_path / "missing")):
        find_identifiers(output, against=tmp_path / "missing")
