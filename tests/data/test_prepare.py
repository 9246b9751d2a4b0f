import hashlib
import json
import shutil
import time

import numpy as np
import pydicom
import pytest

from medgan.data import prepare as module
from medgan.data.dataset import PreparedDataset
from medgan.data.prepare import prepare
from medgan.errors import InputError
from medgan.tasks import TASKS

TASK = TASKS["pet2ct"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def copy(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "dicom")


def edit(folder, **changes):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword, value in changes.items():
            setattr(header, keyword, value)
        header.save_as(path)


def test_the_manifest_says_what_lies_there(prepared):
    manifest = prepared.manifest
    assert manifest.phantom
    assert manifest.size == 32
    assert manifest.spacing_mm == 11  # 352 mm at 32 pixels
    assert manifest.task == TASK
    assert sorted(patient.role for patient in manifest.patients) == ["test"] * 2 + ["train"] * 3 + ["validation"]
    for patient in manifest.patients:
        assert patient.slices == len(patient.slice_numbers)
        assert patient.slices + patient.dropped == 6
        for name, digest in patient.sha256.items():
            content = (prepared.folder / patient.folder / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
        assert np.load(prepared.folder / patient.folder / "source.npy").dtype == np.int16
        assert np.load(prepared.folder / patient.folder / "mask.npy").shape == (patient.slices, 32, 32)


def test_a_second_call_opens_the_same_files(phantoms, prepared):
    before = contents(prepared.folder.parent)
    start = time.perf_counter()
    again = prepare(phantoms, task=TASK, datasets=prepared.folder.parent, size=32)
    assert time.perf_counter() - start < 2
    assert again.folder == prepared.folder
    assert contents(prepared.folder.parent) == before


def test_making_it_anew_gives_the_same_digest_also_over_processes(phantoms, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLICES_WORTH_A_PROCESS", 1)
    for name in (".key", "roles.json"):
        shutil.copy(prepared.folder.parent / name, tmp_path)
    seen = []
    again = prepare(phantoms, task=TASK, datasets=tmp_path, size=32, processes=2,
                    progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert again.digest == prepared.digest
    assert seen == [(number, 6) for number in range(1, 7)]


def test_other_settings_and_changed_files_make_another_data_set(copy, tmp_path):
    first = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    coarser = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16, spacing_mm=25.0)
    edit(copy / "PHANTOM-0001" / "CT", RescaleIntercept=-1000)
    changed = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    assert len({first.digest, coarser.digest, changed.digest}) == 3
    assert first.folder.is_dir()


def test_roles_stay_when_patients_come(copy, tmp_path):
    held_back = shutil.move(copy / "PHANTOM-0003", tmp_path / "later")
    first = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    shutil.move(held_back, copy / "PHANTOM-0003")
    second = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    roles = {patient.hash: patient.role for patient in second.manifest.patients}
    assert len(roles) == 6
    assert all(roles[patient.hash] == patient.role for patient in first.manifest.patients)


def test_a_crash_leaves_nothing_to_be_seen(phantoms, tmp_path, monkeypatch):
    def crash(*arguments, **more):
        raise KeyboardInterrupt

    (tmp_path / ".pet2ct-16px-000000000000.part").mkdir()
    monkeypatch.setattr(module, "_manifest", crash)
    with pytest.raises(KeyboardInterrupt):
        prepare(phantoms, task=TASK, datasets=tmp_path, size=16)
    assert not list(tmp_path.glob("pet2ct*"))
    monkeypatch.undo()
    assert len(prepare(phantoms, task=TASK, datasets=tmp_path, size=16).manifest.patients) == 6


def test_no_identifier_reaches_any_file(copy, tmp_path):
    marker = "ZZSECRET"
    uid = "1.2.840.99999.7777"
    for number, patient in enumerate(sorted(path for path in copy.iterdir() if path.is_dir())):
        patient = patient.rename(copy / f"{marker}-{number}")
        edit(patient, PatientName=f"{marker}^Name", PatientID=f"{marker}{number}", PatientBirthDate="19331224",
             AccessionNumber=marker, StudyInstanceUID=f"{uid}.{number}", FrameOfReferenceUID=f"{uid}.{number}.1",
             StudyDate="19551111")  # fmt: skip
    shutil.rmtree(copy / f"{marker}-5" / "PT")  # a patient who is set aside
    made = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    assert len(made.manifest.patients) == 5
    assert "expected PT and CT; got only CT" in made.manifest.notes[0]
    for path, content in contents(tmp_path / "out").items():
        for secret in (marker, uid, "19331224", "19551111", str(tmp_path)):
            assert secret not in str(path)
            assert secret.encode() not in content


def test_a_patient_who_cannot_be_read_is_set_aside_with_the_reason(copy, tmp_path):
    (copy / "PHANTOM-0001" / "CT" / "0003.dcm").unlink()
    edit(copy / "PHANTOM-0002" / "PT", Units="CNTS")
    made = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    assert len(made.manifest.patients) == 4
    notes = "\n".join(made.manifest.notes)
    assert "set aside: CT: slice spacing varies from 4.00 to 8.00 mm" in notes
    assert "set aside: PT: expected Units GML (SUV) or BQML (activity), got CNTS" in notes
    assert "PHANTOM" not in notes


def test_a_patient_without_activity_is_set_aside(copy, tmp_path):
    edit(copy / "PHANTOM-0001" / "PT", RescaleSlope="1e-9")
    made = prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    assert "no slice of the 6 shows enough PT" in made.manifest.notes[0]


def test_too_few_usable_patients_are_refused_with_the_reasons(copy, tmp_path):
    for number in range(1, 5):
        edit(copy / f"PHANTOM-000{number}" / "PT", Units="CNTS")
    with pytest.raises(InputError, match=r"expected at least 3 patients to split, got 2 (.|\n)*got CNTS"):
        prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)
    assert not list((tmp_path / "out").glob("*pet2ct*"))


def test_one_modality_alone_is_refused_by_its_folder(copy, tmp_path):
    for folder in copy.glob("*/PT"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="dicom: expected PT and CT series of the same patients; found 6 CT and 0 PT"):
        prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)


def test_a_missing_folder_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder of DICOM files"):
        prepare(tmp_path / "nowhere", task=TASK, datasets=tmp_path / "out", size=16)
    assert not (tmp_path / "out").exists()


def test_patients_and_phantoms_are_never_mixed(copy, tmp_path):
    edit(copy / "PHANTOM-0001", ManufacturerModelName="Discovery ST")
    with pytest.raises(InputError, match="expected either patients or phantoms, got both"):
        prepare(copy, task=TASK, datasets=tmp_path / "out", size=16)


@pytest.mark.real
def test_the_real_patients_are_prepared(real, tmp_path):
    made = prepare(real, task=TASK, datasets=tmp_path, size=64)
    manifest = made.manifest
    assert len(manifest.patients) == 18
    assert not manifest.phantom
    assert not manifest.notes
    assert sum(patient.slices for patient in manifest.patients) == 1023
    assert sum(patient.role == "test" for patient in manifest.patients) == 6
    assert json.loads((made.folder / "dataset.json").read_text())["digest"] == made.digest
    assert isinstance(PreparedDataset.open(made.folder), PreparedDataset)
