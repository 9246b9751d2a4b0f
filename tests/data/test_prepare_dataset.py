import hashlib
import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from refusal import refusal

from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import read_manifest
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare import prepare_dataset as module
from medgan.data.prepare.plan import Plan
from medgan.data.prepare.prepare_dataset import PrepareRequest, plan_only, prepare
from medgan.errors import InputError
from medgan.tasks import TASKS

TASK = TASKS["pet2ct"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def made(source, datasets, size=16, **more):
    """Prepares the data set of a folder and opens it."""
    return PreparedDataset.open(prepare(PrepareRequest(source, TASK, size, datasets, **more)))


@pytest.fixture
def copy(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "dicom")


def edit(folder, **changes):
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword, value in changes.items():
            setattr(header, keyword, value)
        header.save_as(path)


def test_manifest_describes_stored_files(prepared):
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
        assert 0.8 < patient.overlap <= 1
        assert 1 < patient.mutual_information < 2


def test_fingerprint_and_plan_are_readable_json(prepared):
    facts = json.loads((prepared.folder / "fingerprint.json").read_text())
    assert facts["patients"] == 6
    assert facts["target"]["pixel_spacing_mm"] == [7.3333, 7.3333, 7.3333]
    assert facts["source"]["slices"] == [5, 5, 5]
    plan = json.loads((prepared.folder / "plan.json").read_text())
    assert (plan["task"], plan["size"], plan["spacing_mm"]) == ("pet2ct", 32, 11)
    assert (plan["source_window"], plan["target_window"]) == ([0, 10], [-1000, 2000])
    assert (prepared.folder / "report.html").stat().st_size > 10_000


def test_second_prepare_leaves_files_unchanged(phantoms, prepared):
    before = contents(prepared.folder.parent)
    start = time.perf_counter()
    again = made(phantoms, prepared.folder.parent, 32)
    assert time.perf_counter() - start < 2
    assert again.folder == prepared.folder
    assert contents(prepared.folder.parent) == before


def test_prepare_elsewhere_in_processes_gives_same_digest(phantoms, prepared, tmp_path):
    for name in (".key", "roles.json"):
        shutil.copy(prepared.folder.parent / name, tmp_path)
    seen = []
    folder = prepare(PrepareRequest(phantoms, TASK, 32, tmp_path, processes=2), lambda *done: seen.append(done))
    assert read_manifest(folder).digest == prepared.digest
    assert seen == [(number, 6) for number in range(1, 7)]


def test_prepare_converts_only_new_patient_and_keeps_roles(copy, tmp_path):
    held_back = shutil.move(copy / "PHANTOM-0003", tmp_path / "later")
    first = made(copy, tmp_path / "out")
    before = contents(first.folder / "patients")
    shutil.move(held_back, copy / "PHANTOM-0003")
    seen = []
    folder = prepare(PrepareRequest(copy, TASK, 16, tmp_path / "out"), lambda *done: seen.append(done))
    second = PreparedDataset.open(folder)
    assert (folder, seen) == (first.folder, [(1, 1)])
    assert contents(folder / "patients").items() >= before.items()
    assert PreparedDataset.open(first.state).digest == first.digest
    assert len(PreparedDataset.open(first.state).slices("test")) == len(first.slices("test"))
    assert second.digest != first.digest
    roles = {patient.hash: patient.role for patient in second.manifest.patients}
    assert len(roles) == 6
    assert all(roles[patient.hash] == patient.role for patient in first.manifest.patients)


def test_prepare_converts_only_patient_with_changed_file(copy, tmp_path):
    first = made(copy, tmp_path / "out")
    edit(copy / "PHANTOM-0001" / "CT", RescaleIntercept=-1000)
    second = made(copy, tmp_path / "out")
    old, new = ({patient.folder for patient in one.manifest.patients} for one in (first, second))
    assert len(new - old) == 1
    assert second.digest != first.digest


def test_prepare_follows_edited_plan(copy, tmp_path):
    request = PrepareRequest(copy, TASK, 16, tmp_path / "out")
    path = plan_only(request)
    assert not (path.parent / "dataset.json").exists()
    path.write_text(path.read_text().replace('"spacing_mm": 22.0', '"spacing_mm": 25.0').replace("10.0", "8.0"))
    manifest = read_manifest(prepare(request))
    assert manifest.spacing_mm == 25
    assert manifest.task.source.window == (0, 8)
    assert {patient.source_window for patient in manifest.patients} == {(0, 8)}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"size": 16', '"size": 8', refusal("E-PLAN-06", loc="size", given="8")),
        ('"task": "pet2ct",', "", refusal("E-PLAN-06", loc="task", msg="Field required")),
        ('"size": 16,', '"size": 16', refusal("E-PLAN-03", lineno="4")),
        ("10.0", "-1.0", refusal("E-PLAN-08", name="source_window", window="(0.0, -1.0)")),
    ],
)
def test_prepare_refuses_invalid_field_of_plan(copy, tmp_path, before, after, expected):
    request = PrepareRequest(copy, TASK, 16, tmp_path / "out")
    path = plan_only(request)
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(InputError, check=expected) as caught:
        prepare(request)
    assert str(path) in str(caught.value)


def test_prepare_applies_settings_and_refuses_later_changes(copy, tmp_path):
    request = PrepareRequest(copy, TASK, 16, tmp_path, {"spacing_mm": 30, "test_share": 0.5}, tmp_path / "own")
    manifest = read_manifest(prepare(request))
    assert manifest.spacing_mm == 30
    assert sum(patient.role == "test" for patient in manifest.patients) == 3
    plan = tmp_path / "own" / "plan.json"
    expected = refusal("E-PREPARE-05", folder=plan, path="spacing_mm", there="30.0", value="20")
    with pytest.raises(InputError, check=expected):
        prepare(replace(request, settings={"spacing_mm": 20}))
    with pytest.raises(InputError, check=refusal("E-PREPARE-05", folder=plan, path="size", there="16", value="32")):
        prepare(replace(request, size=32))
    with pytest.raises(InputError, check=refusal("E-PLAN-05", loc="severty", known=", ".join(Plan.model_fields))):
        prepare(replace(request, settings={"severty": 3}, out=tmp_path / "other"))
    with pytest.raises(InputError, check=refusal("E-PLAN-02", path="simulation.severity")):
        prepare(replace(request, settings={"simulation.severity": 3}, out=tmp_path / "other"))


def test_crashed_prepare_leaves_no_data_set_and_keeps_finished_work(phantoms, tmp_path, monkeypatch):
    def crash(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sealed", crash)
    request = PrepareRequest(phantoms, TASK, 16, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(request)
    assert not list(tmp_path.rglob("dataset.json"))
    finished = contents(tmp_path)
    monkeypatch.undo()
    seen = []
    folder = prepare(request, lambda *done: seen.append(done))
    assert seen == []
    assert len(read_manifest(folder).patients) == 6
    assert finished.items() <= contents(tmp_path).items() | {
        (path, finished[path]) for path in finished if "roles" in path.name
    }


def test_prepare_refuses_too_little_disk_space_before_conversion(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BYTES_A_PIXEL", 1e15)
    with pytest.raises(InputError, check=refusal("E-PREPARE-06")):
        made(phantoms, tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_prepare_writes_no_identifier_to_any_file(copy, tmp_path):
    marker = "ZZSECRET"
    uid = "1.2.840.99999.7777"
    for number, patient in enumerate(sorted(path for path in copy.iterdir() if path.is_dir())):
        patient = patient.rename(copy / f"{marker}-{number}")
        edit(patient, PatientName=f"{marker}^Name", PatientID=f"{marker}{number}", PatientBirthDate="19331224",
             AccessionNumber=marker, StudyInstanceUID=f"{uid}.{number}", FrameOfReferenceUID=f"{uid}.{number}.1",
             StudyDate="19551111")  # fmt: skip
    shutil.rmtree(copy / f"{marker}-5" / "PT")  # a patient who is set aside
    one = made(copy, tmp_path / "out")
    assert len(one.manifest.patients) == 5
    assert "expected PT and CT; got only CT" in one.manifest.set_aside[0]
    for path, content in contents(tmp_path / "out").items():
        for secret in (marker, uid, "19331224", "19551111", str(tmp_path)):
            assert secret not in str(path)
            assert secret.encode() not in content


def test_prepare_sets_unreadable_patient_aside_with_reason(copy, tmp_path):
    (copy / "PHANTOM-0001" / "CT" / "0003.dcm").unlink()
    edit(copy / "PHANTOM-0002" / "PT", Units="CNTS")
    one = made(copy, tmp_path / "out")
    assert len(one.manifest.patients) == 4
    notes = "\n".join(one.manifest.notes)
    assert "set aside: CT: slice spacing varies from 4.00 to 8.00 mm" in notes
    assert "set aside: PT: expected Philips' SUV scale factor" in notes
    assert "which Units CNTS needs" in notes
    assert "PHANTOM" not in notes


def test_prepare_sets_patient_below_least_overlap_aside(copy, tmp_path):
    for path in (copy / "PHANTOM-0001" / "PT").iterdir():
        header = pydicom.dcmread(path)
        header.ImagePositionPatient[0] += 120
        header.save_as(path)
    one = made(copy, tmp_path / "out", settings={"least_overlap": 0.7})
    assert len(one.manifest.patients) == 5
    reason = "set aside: PT and CT: the bodies do not meet: they overlap by 0."
    assert reason in one.manifest.set_aside[0]


def test_prepare_refuses_too_many_broken_patients_with_reasons(copy, tmp_path):
    for number in range(1, 5):
        edit(copy / f"PHANTOM-000{number}" / "PT", Units="CNTS")
    expected = refusal("E-PREPARE-07", source=copy, num_usable="2", num_broken="4")
    with pytest.raises(InputError, check=expected) as caught:
        made(copy, tmp_path / "out")
    assert str(caught.value).count("which Units CNTS needs") == 4
    assert not list((tmp_path / "out").rglob("dataset.json"))
    assert len(made(copy, tmp_path / "out", settings={"most_broken": 0.8}).manifest.patients) == 2


def test_prepare_refuses_folder_of_one_modality_alone(copy, tmp_path):
    for folder in copy.glob("*/PT"):
        shutil.rmtree(folder)
    expected = refusal("E-PAIR-01", source=copy, expected="PT and CT", found="6 CT and 0 PT")
    with pytest.raises(InputError, check=expected):
        made(copy, tmp_path / "out")


def test_prepare_refuses_missing_folder_before_writing(tmp_path):
    with pytest.raises(InputError, check=refusal("E-PREPARE-02", source=tmp_path / "nowhere")):
        made(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_refuses_patients_mixed_with_phantoms(copy, tmp_path):
    edit(copy / "PHANTOM-0001", ManufacturerModelName="Discovery ST")
    with pytest.raises(InputError, check=refusal("E-PATIENT-02", num_patients="1", num_phantoms="5")):
        made(copy, tmp_path / "out")


@pytest.mark.real
def test_prepare_converts_real_patients(real, tmp_path):
    one = made(real, tmp_path, 64)
    manifest = one.manifest
    assert len(manifest.patients) == 18
    assert not manifest.phantom
    assert not manifest.notes
    assert sum(patient.slices for patient in manifest.patients) == 1023
    assert sum(patient.role == "test" for patient in manifest.patients) == 6
    assert json.loads((one.folder / "dataset.json").read_text())["digest"] == one.digest


def test_prepare_registers_displaced_source_where_plan_says_rigid(tmp_path):
    source = write_phantoms(tmp_path / "dicom", patients=3, slices=16, matrix=64)
    for path in source.glob("*/PT/*"):
        header = pydicom.dcmread(path)
        header.ImagePositionPatient[0] += 25
        header.save_as(path)
    plain, registered = (
        made(source, tmp_path / name, 32, settings={"registration": name}).manifest.patients
        for name in ("none", "rigid")
    )
    for before, after in zip(plain, registered, strict=True):
        assert before.notes == []
        assert after.mutual_information > before.mutual_information
        assert after.overlap > before.overlap
        (note,) = after.notes
        assert float(note.split("moved by ")[1].split()[0]) == pytest.approx(25, abs=4)
