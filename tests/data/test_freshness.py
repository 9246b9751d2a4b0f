"""`prepare` updates a data set exactly where something is new, changed, missing or damaged."""

import json
import shutil

import pydicom
import pytest
from refusal import refusal

from medgan.data.manifest import read_manifest
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, plan_only, prepare
from medgan.errors import InputError
from medgan.tasks import TASKS


@pytest.fixture
def source(phantoms, tmp_path):
    """Four of the phantoms."""
    for number in range(1, 5):
        shutil.copytree(phantoms / f"PHANTOM-000{number}", tmp_path / "dicom" / f"PHANTOM-000{number}")
    return tmp_path / "dicom"


@pytest.fixture
def request_(source, tmp_path):
    return PrepareRequest(source, TASKS["pet2ct"], 16, tmp_path / "out")


def converted(request):
    """Returns the manifest after preparing, and the number of patients that were converted."""
    seen = []
    manifest = read_manifest(prepare(request, lambda *done: seen.append(done)))
    return manifest, len(seen)


def test_prepare_adds_patient_who_arrived_during_earlier_call(phantoms, source, request_):
    def one_more(done, total):
        if done == 1:
            shutil.copytree(phantoms / "PHANTOM-0005", source / "PHANTOM-0005")

    assert len(read_manifest(prepare(request_, one_more)).patients) == 4
    assert len(converted(request_)[0].patients) == 5


def test_prepare_adds_patient_in_linked_folder(phantoms, source, request_):
    assert len(converted(request_)[0].patients) == 4
    (source / "linked").symlink_to(phantoms / "PHANTOM-0005")
    assert len(converted(request_)[0].patients) == 5


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
@pytest.mark.parametrize("name", ["target.npy", "patient.json"])
def test_prepare_converts_patient_with_missing_or_damaged_files_again(request_, damage, name):
    first, _ = converted(request_)
    folder = request_.datasets / next(request_.datasets.glob("pet2ct*")) / first.patients[0].folder
    damage(folder / name)
    (folder.parent.parent / "dataset.json").unlink()
    second, num_converted = converted(request_)
    assert num_converted == 1
    assert second.digest == first.digest


def test_prepare_restores_missing_array_of_complete_data_set(request_):
    first, _ = converted(request_)
    next(request_.datasets.rglob("mask.npy")).unlink()
    assert converted(request_) == (first, 1)


@pytest.mark.parametrize("content", ["{", '{"schema_version": 1}'])
def test_prepare_rewrites_damaged_or_older_manifest(request_, content):
    first, _ = converted(request_)
    next(request_.datasets.glob("*/dataset.json")).write_text(content)
    assert converted(request_) == (first, 0)


def test_prepare_refuses_damaged_roles_and_draws_no_new_roles(request_):
    converted(request_)
    roles = request_.datasets / "roles.json"
    roles.write_text("{")
    next(request_.datasets.glob("*/dataset.json")).unlink()
    with pytest.raises(InputError, check=refusal("E-SPLIT-01", path=roles)):
        prepare(request_)
    assert roles.read_text() == "{"


def test_prepare_notes_cropping_of_patient_larger_than_grid(source, request_):
    path = plan_only(request_)
    path.write_text(path.read_text().replace('"spacing_mm": 22.0', '"spacing_mm": 16.0'))
    manifest, _ = converted(request_)
    assert {note for one in manifest.patients for note in one.notes} == {"cropped: 352 mm wide, the grid holds 256 mm"}


def test_prepare_notes_broken_series_beside_usable_series(source, request_):
    shutil.copytree(source / "PHANTOM-0001" / "CT", source / "PHANTOM-0001" / "CT2")
    for path in (source / "PHANTOM-0001" / "CT2").iterdir():
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = "1.2.3.4"
        header.SOPInstanceUID = f"1.2.3.4.{int(path.stem)}"
        del header.ImagePositionPatient
        header.save_as(path)
    manifest, _ = converted(request_)
    assert len(manifest.patients) == 4
    (note,) = [note for one in manifest.patients for note in one.notes]
    assert note.startswith("not used: CT: 6 of 6 slices have no Image Position")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target_window": None}, refusal("E-PLAN-07", name="target_window", unit="HU", arbitrary_unit="a.u.")),
        ({"test_share": 0.9}, refusal("E-PLAN-09", test_share=0.9)),
        ({"simulation": {"severity": 1}}, refusal("E-PLAN-10", named="null, because source images are given")),
    ],
)
def test_prepare_refuses_plan_that_does_not_fit_images(request_, changes, expected):
    path = plan_only(request_)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, check=expected):
        prepare(request_)


def test_prepare_refuses_simulated_task_without_matching_settings(tmp_path):
    source = write_phantoms(tmp_path / "dicom", task="pet_denoise", patients=1, slices=4)
    request = PrepareRequest(source, TASKS["pet_denoise"], 32, tmp_path / "out")
    path = plan_only(request)
    for simulation in (None, {"severity": 2.0}):
        path.write_text(json.dumps({**json.loads(path.read_text()), "simulation": simulation}))
        with pytest.raises(InputError, check=refusal("E-PLAN-10", named="settings of low_dose")):
            prepare(request)
    for name in ("task", "size"):
        with pytest.raises(InputError, check=refusal("E-PLAN-01", taken=name)):
            prepare(PrepareRequest(source, TASKS["pet_denoise"], 32, tmp_path / "other", {name: 16}))


def test_prepare_refuses_output_path_that_is_file(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, check=refusal("E-PREPARE-04", place=tmp_path / "file")):
        prepare(PrepareRequest(source, TASKS["pet2ct"], 16, tmp_path / "out", out=tmp_path / "file"))
