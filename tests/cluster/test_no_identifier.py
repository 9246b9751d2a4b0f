"""Patients whose every identifying attribute is a marker go through the whole main job; no marker comes out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.deid.find_identifiers import find_identifiers

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 200
MARKER = "QZXMARK"
TEXTS = (
    "PatientID", "PatientName", "PatientAddress", "OtherPatientIDs", "AccessionNumber", "InstitutionName",
    "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "StationName",
    "DeviceSerialNumber", "RequestingPhysician", "PatientComments", "StudyDescription", "SeriesDescription",
    "ProtocolName", "ImageComments",
)  # fmt: skip
DATES = {
    "PatientBirthDate": "19331224",
    "StudyDate": "19551111",
    "SeriesDate": "19551111",
    "AcquisitionDate": "19551111",
}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")


def mark(path, patient):
    """Every identifying attribute of a file names its patient by a marker; the file's path does, too."""
    header = pydicom.dcmread(path)
    for keyword in TEXTS:
        setattr(header, keyword, f"{MARKER}{patient}")
    for keyword, value in DATES.items():
        setattr(header, keyword, value)
    for keyword in UIDS:
        setattr(header, keyword, f"1.2.826.0.1.3680043.9.{patient}.{header[keyword].value.split('.')[-1]}"[:64])
    header.ManufacturerModelName = "scanner"  # no phantom any more, as far as medgan can tell
    header.save_as(path)


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Six marked patients in folders that bear their names."""
    folder = write_phantoms(tmp_path_factory.mktemp("marked") / "dicom", patients=6, slices=6, matrix=48)
    for number, patient in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in patient.rglob("*.dcm"):
            mark(path, number)
        patient.rename(folder / f"{MARKER}{number}")
    (folder / "phantoms.json").unlink()
    return folder


@pytest.fixture(scope="module")
def job(marked, tmp_path_factory):
    """Where the main job on them left everything, and what it said."""
    home = tmp_path_factory.mktemp("job") / "home"
    shutil.rmtree(marked / f"{MARKER}5" / "PT")  # a patient who is set aside
    settings = ["train.epochs=1", "train.batch_size=2", "generator.base_channels=8"]
    command = [sys.executable, REPOSITORY / "jobs" / "tune_pet2ct.py", "--space", "quick", "--trials", "1",
               "--data", marked, *(part for text in settings for part in ("--set", text))]  # fmt: skip
    environment = {**os.environ, "MEDGAN_HOME": str(home)}
    environment.pop("RAY_ADDRESS", None)
    ran = subprocess.run(command, env=environment, cwd=home.parent, capture_output=True, text=True, timeout=LIMIT_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return home, ran.stdout + ran.stderr


def test_job_leaves_models_pictures_and_logs(job):
    home, said = job
    assert "Registered medgan-pet2ct version 1" in said
    names = {path.name for path in home.rglob("*") if path.is_file()}
    assert {"mlflow.db", "study.db", "dataset.json", "report.html", "validation.png"} <= names


def test_no_file_or_file_name_holds_an_identifier(job, marked):
    home, _ = job
    scan = find_identifiers(home, against=marked)
    assert scan.num_values > 30
    assert [finding for finding in scan.findings] == []
    for path in home.rglob("*"):
        assert MARKER not in str(path.relative_to(home))
        if path.is_file():
            content = path.read_bytes()
            assert MARKER.encode() not in content, path
            assert MARKER.encode("utf-16-le") not in content, path


def test_terminal_output_holds_no_identifier(job):
    _, said = job
    assert MARKER not in said


def test_scan_finds_an_identifier_that_is_put_there(job, marked):
    home, _ = job
    (home / "leak.txt").write_text(f"seen: {MARKER}3")
    (finding,) = find_identifiers(home, against=marked).findings
    assert finding.file == "leak.txt"
    (home / "leak.txt").unlink()
