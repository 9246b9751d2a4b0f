"""`find_identifiers` finds the identifiers of given DICOM files in any file, and never repeats them."""

import gzip
import json
import os
import sqlite3
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from refusal import refusal

from medgan.deid import find_identifiers as phi
from medgan.deid.find_identifiers import Finding, find_identifiers
from medgan.errors import InputError

pytestmark = pytest.mark.unit

NAME, PATIENT, ACCESSION, PHYSICIAN = "Zyxquist^Marijke^Prof.", "QX-77140", "48151623", "Vendelbo^Ole"
INSTITUTION, SERIAL, OTHER, STATION = "Kliniken Öster & Co", "SN5519X", "OLD-220177", "CTAWP7"
STUDY = "1.2.826.0.1.3680043.2.1125.1.7834"
SECRETS = [
    "zyxquist", "marijke", PATIENT, "19480229", "1948-02-29", ACCESSION, "vendelbo", INSTITUTION, SERIAL, OTHER, STUDY,
    "patient7714",
]  # fmt: skip


@pytest.fixture
def dicom(make_series, tmp_path):
    """The folder of one patient, with identifiers in every attribute that is searched."""
    other = Dataset()
    other.PatientID = OTHER
    return make_series(
        tmp_path / "hospital" / "patient7714" / "images",
        patient=PATIENT,
        study=STUDY,
        num=2,
        PatientName=NAME,
        PatientBirthDate="19480229",
        AccessionNumber=ACCESSION,
        ReferringPhysicianName=PHYSICIAN,
        SpecificCharacterSet="ISO_IR 100",
        InstitutionName=INSTITUTION,
        DeviceSerialNumber=SERIAL,
        StationName=STATION,
        StudyID="12",
        OtherPatientIDsSequence=[other],
    ).parents[1]


def png(texts):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*text) for text in texts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("zyxquist", "Patient's Name"),
        ("Marijke", "Patient's Name"),
        (NAME, "Patient's Name"),
        (PATIENT, "Patient ID"),
        (OTHER, "Patient ID"),
        ("19480229", "Patient's Birth Date"),
        ("1948-02-29", "Patient's Birth Date"),
        (ACCESSION, "Accession Number"),
        ("VENDELBO", "Referring Physician's Name"),
        (INSTITUTION, "Institution Name"),
        (SERIAL, "Device Serial Number"),
        (STATION, "Station Name"),
        (STUDY, "UID"),
        ("patient7714", "path of the DICOM files"),
    ],
)
@pytest.mark.parametrize(
    "write", [str.encode, lambda text: text.encode("utf-16-le"), lambda text: gzip.compress(text.encode())]
)
def test_find_identifiers_finds_each_kind_of_value_in_file(dicom, output, value, what, write, found):
    (output / "some.bin").write_bytes(write(f"before {value} after"))
    assert ("some.bin", what) in found(output, against=dicom)


def test_find_identifiers_searches_every_file_format(dicom, output, found):
    (output / "a.json").write_text(json.dumps({"who": INSTITUTION}))
    (output / "b.html").write_text("<p>Kliniken Öster &amp; Co</p>")
    np.save(output / "c.npy", np.array([f"x {PATIENT}"]))
    with sqlite3.connect(output / "d.db") as database:
        database.execute("create table runs (tag text, value text)")
        database.execute("insert into runs values ('patient', 'Zyxquist')")
    database.close()
    with zipfile.ZipFile(output / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/notes.txt", SERIAL)
        archive.writestr("folder/series.dcm", next(dicom.rglob("CT-001")).read_bytes())
    (output / "f.png").write_bytes(png([(b"tEXt", b"Author\0" + PATIENT.encode())]))
    (output / "g.png").write_bytes(png([(b"zTXt", b"Author\0\0" + zlib.compress(PATIENT.encode()))]))
    header = json.dumps({"__metadata__": {"patient": PATIENT}}).encode()
    (output / "h.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    findings = found(output, against=dicom)
    for expected in (
        ("a.json", "Institution Name"), ("b.html", "Institution Name"), ("d.db", "Patient's Name"),
        ("e.zip", "Device Serial Number"), ("f.png", "Patient ID"), ("g.png", "Patient ID"),
        ("h.safetensors", "Patient ID"),
    ):  # fmt: skip
        assert expected in findings
    assert any(file == "e.zip" and what.startswith("DICOM file with Accession Number") for file, what in findings)
    np.save(output / "c.npy", np.array([f"x {PATIENT}".encode()]))
    assert ("c.npy", "Patient ID") in found(output, against=dicom)


def test_finding_does_not_repeat_identifying_value(dicom, output):
    (output / "run Zyxquist.log").write_text(" ".join(SECRETS))
    (output / STUDY).mkdir()
    (output / STUDY / "patient7714.txt").write_text("nothing")
    (output / "Kliniken%20%C3%96ster%20%26%20Co.txt").write_text("nothing")
    findings = find_identifiers(output, against=dicom).findings
    assert Finding("***", "Institution Name in the file's name") in findings
    assert Finding("run ***.log", "Patient's Name in the file's name") in findings
    assert Finding("***/***.txt", "UID in the file's name") in findings
    assert Finding("***/***.txt", "path of the DICOM files in the file's name") in findings
    assert [secret for secret in SECRETS if secret.lower() in repr(findings).lower()] == []
    assert "Kliniken" not in repr(findings)


def test_scan_counts_files_and_values_searched_for(dicom, output):
    (output / "clean.txt").write_text("nothing")
    scan = find_identifiers(output, against=dicom)
    assert scan.findings == []
    assert (scan.num_files, scan.num_unread) == (1, 0)
    path = (
        len({part for part in dicom.resolve().parts if any(map(str.isdigit, part))} - set(output.resolve().parts)) + 2
    )
    names = {"Zyxquist", "Marijke", "Prof.", NAME, "Vendelbo", PHYSICIAN}
    others = {PATIENT, OTHER, "19480229", "1948-02-29", ACCESSION, INSTITUTION, SERIAL, STATION}
    uids = 4  # study, series and two instances, but not the frame of reference, 1.2.9
    assert scan.num_values == path + len(names | others) + uids


@pytest.mark.parametrize("word", ["Ole", "12", "ANONYMOUS", "images", "hospital", "1.2.9"])
def test_find_identifiers_ignores_short_and_common_words(dicom, output, word, found):
    (output / "text.txt").write_text(f"x {word} x")
    assert found(output, against=dicom) == []


def test_find_identifiers_ignores_shared_parent_folders(dicom, output, found):
    (output / "text.txt").write_text("\n".join(part for part in output.resolve().parts if len(part) > 1))
    assert found(output, against=dicom) == []


def test_find_identifiers_ignores_base64_but_searches_text_around(dicom, output, found):
    picture = "A" * 500 + "zyxquist" + "A" * 500
    (output / "report.html").write_text(f'<img src="data:image/png;base64,{picture}">')
    assert found(output, against=dicom) == []
    (output / "report.html").write_text(f'<img alt="zyxquist" src="data:image/png;base64,{picture}">')
    assert found(output, against=dicom) == [("report.html", "Patient's Name")]


def test_find_identifiers_finds_values_across_read_windows(dicom, output, monkeypatch, found):
    monkeypatch.setattr(phi, "WINDOW_BYTES", 64)
    for shift in range(0, 64, 7):
        (output / f"{shift:02d}").write_bytes(b"." * shift + b"_" * 40 + PATIENT.encode() + b"_" * 40 + STUDY.encode())
    assert found(output, against=dicom) == [
        (f"{shift:02d}", what) for shift in range(0, 64, 7) for what in ("Patient ID", "UID")
    ]


def damage(path):
    """Gives the study's UID a value representation that does not exist."""
    content = path.read_bytes()
    assert b"\x20\x00\x0d\x00UI" in content
    path.write_bytes(content.replace(b"\x20\x00\x0d\x00UI", b"\x20\x00\x0d\x00OI"))


def test_find_identifiers_reports_and_counts_damaged_header(dicom, output, found):
    source = next(dicom.rglob("CT-001"))
    damage(source)
    (output / "copy").write_bytes(source.read_bytes())
    findings = found(output, against=dicom)
    assert ("copy", "DICOM file whose header is damaged") in findings
    assert any("Patient's Name" in what for _, what in findings), "values before the damage are known"
    assert ("copy", "Patient ID") in findings, "the bytes are searched in spite of the damage"
    assert find_identifiers(output, against=dicom).num_unread == 1


def test_find_identifiers_counts_dicom_file_without_read_permission(dicom, output, monkeypatch):
    (output / "text.txt").write_text(PATIENT)
    closed, plain = next(dicom.rglob("CT-001")), Path.open

    def refuse(self, *arguments, **more):
        if self == closed:
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    scan = find_identifiers(output, against=dicom)
    assert scan.num_unread == 1
    assert [one.what for one in scan.findings] == ["Patient ID"], "the other slice holds the same value"


def test_find_identifiers_reports_folder_without_read_permission(dicom, output, monkeypatch):
    (output / "inner").mkdir()
    (dicom / "inner").mkdir()
    plain = os.scandir

    def refuse(folder):
        if Path(folder).name == "inner":
            raise PermissionError(13, "Permission denied", str(folder))
        return plain(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    scan = find_identifiers(output, against=dicom)
    assert scan.findings == [Finding(".", "not searched: 1 folders or files that may not be read")]
    assert scan.num_unread == 1


def test_prepared_data_set_holds_no_identifier(prepared, phantoms):
    scan = find_identifiers(prepared.folder, against=phantoms)
    assert scan.num_values > 6 * 10
    assert scan.num_files > 6 * 3
    assert scan.findings == []


def test_find_identifiers_refuses_against_folder_without_dicom(output, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("nothing")
    with pytest.raises(InputError, check=refusal("E-DEID-03", num_paths="1", num_unread="0")):
        find_identifiers(output, against=tmp_path / "text")
