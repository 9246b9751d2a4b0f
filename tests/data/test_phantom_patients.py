import json

import numpy as np
import pydicom
import pytest
from refusal import refusal
from scipy import ndimage

from medgan.data.phantoms import phantom_patients as made_here
from medgan.data.phantoms.anatomy import ANATOMIES, NAMES, TISSUES
from medgan.data.phantoms.phantom_patients import mr_phantom, pet_phantom, phantom_volumes, write_phantoms
from medgan.data.prepare.pairing import pair
from medgan.data.prepare.resample import grid_of, resample
from medgan.data.reader import find_series, read_volume
from medgan.errors import InputError
from medgan.tasks import TASKS

pytestmark = pytest.mark.unit


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_write_phantoms_with_same_seed_gives_same_bytes(tmp_path):
    made = [write_phantoms(tmp_path / name, patients=2, slices=3, matrix=32, seed=seed)
            for name, seed in (("a", 1), ("b", 1), ("c", 2))]  # fmt: skip
    assert contents(made[0]) == contents(made[1])
    assert contents(made[0]) != contents(made[2])


@pytest.mark.parametrize(("task", "modality"), [("mr_motion", "MR"), ("pet_denoise", "PT")])
def test_write_phantoms_of_simulated_task_writes_target_alone(tmp_path, task, modality):
    folder = write_phantoms(tmp_path / "a", task=task, patients=2, slices=4, matrix=48, seed=3)
    series = find_series(folder)
    assert [one.modality for one in series] == [modality] * 2
    assert all(one.phantom for one in series)
    make = mr_phantom if modality == "MR" else pet_phantom
    expected, got = make(2, slices=4, matrix=48, seed=3), read_volume(series[1])
    assert got.unit == expected.unit == TASKS[task].target.unit
    np.testing.assert_allclose(got.affine, expected.affine, atol=1e-6)
    np.testing.assert_allclose(got.array, expected.array, atol=0.51 if modality == "MR" else 1e-3)


def test_phantoms_of_two_tasks_share_no_uid(tmp_path):
    uids = []
    for task in TASKS:
        for path in write_phantoms(tmp_path / task, task=task, patients=1, slices=3, matrix=32).rglob("*.dcm"):
            uids.append(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    assert len(set(uids)) == len(uids) == 3 + 2 + 3 + 2


def test_write_phantoms_refuses_unknown_task(tmp_path):
    with pytest.raises(InputError, check=refusal("E-TASK-01", name="ct2mr")):
        write_phantoms(tmp_path / "a", task="ct2mr")


def test_write_phantoms_in_processes_gives_same_bytes(tmp_path, monkeypatch):
    size = {"patients": 3, "slices": 3, "matrix": 32}
    alone = write_phantoms(tmp_path / "a", **size)
    monkeypatch.setattr(made_here, "VOXELS_WORTH_A_PROCESS", 1)
    assert contents(write_phantoms(tmp_path / "b", **size, processes=2)) == contents(alone)


def test_write_phantoms_accepts_folder_recorded_without_task(tmp_path):
    folder = write_phantoms(tmp_path / "a", patients=1, slices=3, matrix=32)
    record = json.loads((folder / "phantoms.json").read_text())
    assert record.pop("task") == "pet2ct"
    (folder / "phantoms.json").write_text(json.dumps(record))
    assert write_phantoms(folder, patients=1, slices=3, matrix=32) == folder
    with pytest.raises(InputError, check=refusal("E-PHANTOM-02", folder=folder)):
        write_phantoms(folder, task="mr_motion", patients=1, slices=3, matrix=32)


def test_write_phantoms_refuses_folder_with_damaged_record(tmp_path):
    (tmp_path / "phantoms.json").write_text("{")
    with pytest.raises(InputError, check=refusal("E-PHANTOM-02", folder=tmp_path)):
        write_phantoms(tmp_path)


def test_write_phantoms_leaves_complete_folder_unchanged(tmp_path):
    folder = write_phantoms(tmp_path / "a", patients=1, slices=3, matrix=32)
    times = [path.stat().st_mtime_ns for path in folder.rglob("*")]
    write_phantoms(folder, patients=1, slices=3, matrix=32)
    assert [path.stat().st_mtime_ns for path in folder.rglob("*")] == times


def test_write_phantoms_refuses_folder_with_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, check=refusal("E-PHANTOM-02", folder=tmp_path)):
        write_phantoms(tmp_path)


@pytest.mark.parametrize("name", ["patients", "slices", "matrix"])
def test_write_phantoms_refuses_count_below_minimum(tmp_path, name):
    with pytest.raises(InputError, check=refusal("E-PHANTOM-01", name=name, value="0")):
        write_phantoms(tmp_path / "a", **{name: 0})


@pytest.mark.parametrize("number", range(1, 5), ids=list(ANATOMIES))
def test_phantom_dicom_keeps_values_in_hu_and_suv(tmp_path, number):
    folder = write_phantoms(tmp_path / "a", patients=number, slices=4, matrix=48, seed=3)
    series = {one.modality: one for one in find_series(folder / f"PHANTOM-{number:04d}")}
    for expected in phantom_volumes(number, slices=4, matrix=48, seed=3):
        got = read_volume(series["CT" if expected.unit == "HU" else "PT"])
        assert got.unit == expected.unit
        np.testing.assert_allclose(got.affine, expected.affine, atol=1e-6)
        np.testing.assert_allclose(got.array, expected.array, atol=0.51 if expected.unit == "HU" else 1e-3)


def test_phantom_pet_lies_over_ct_on_separate_grid(phantoms):
    pairs, problems = pair(find_series(phantoms), TASKS["pet2ct"], root=phantoms)
    assert len(pairs) == 6
    assert not problems
    pet, ct = read_volume(pairs[1].source), read_volume(pairs[1].target)
    assert not np.allclose(pet.affine, ct.affine)
    moved = resample(pet, grid_of(ct), 0).array[1:-1]
    inside = ct.array[1:-1] > -300
    assert moved[inside].mean() > 5 * moved[~inside & (ct.array[1:-1] < -950)].mean()


def test_phantom_headers_state_that_nobody_was_scanned(phantoms):
    for path in phantoms.glob("*/*/0001.dcm"):
        header = pydicom.dcmread(path)
        assert header.PatientIdentityRemoved == "YES"
        assert header.ManufacturerModelName == "medgan phantom"
        assert "phantom" in header.SeriesDescription
        assert header.PatientID == path.parts[-3]


@pytest.fixture(scope="module", params=range(1, 5), ids=list(ANATOMIES))
def anatomy(request):
    """Number and tissues of one phantom, without images of it."""
    return request.param, made_here._anatomy(request.param, slices=10, matrix=96, seed=5)


def inside(anatomy, tissue, margin=2):
    """Returns the voxels of a tissue, away from its edge."""
    mask = anatomy.labels == NAMES.index(tissue)
    return np.stack([ndimage.binary_erosion(image, iterations=margin) for image in mask])


def test_anatomy_has_skin_fat_bone_lesion_and_surrounding_air(anatomy):
    _, tissues = anatomy
    present = {NAMES[index] for index in np.unique(tissues.labels)}
    assert {"air", "skin", "fat", "cortex", "lesion"} <= present
    assert not tissues.labels[:, :3].any()


def test_anatomy_changes_smoothly_from_slice_to_slice(anatomy):
    _, tissues = anatomy
    unlike = [(one != other).mean() for one, other in zip(tissues.labels[:-1], tissues.labels[1:], strict=True)]
    assert 0 < np.mean(unlike) < 0.1


def test_phantom_has_same_anatomy_for_every_task(anatomy):
    number, tissues = anatomy
    ct, _ = phantom_volumes(number, slices=10, matrix=96, seed=5)
    mr = mr_phantom(number, slices=10, matrix=96, seed=5)
    name = "white matter" if number == 1 else "fat"
    where = inside(tissues, name, 1)
    assert np.median(ct.array[where]) == pytest.approx(TISSUES[name].hu, abs=15)
    assert np.median(mr.array[where]) == pytest.approx(TISSUES[name].mr, rel=0.25)


def test_mr_phantom_shows_fat_brighter_than_muscle_bone_and_air():
    tissues = made_here._anatomy(4, slices=10, matrix=128, seed=5)
    mr = mr_phantom(4, slices=10, matrix=128, seed=5).array
    fat, muscle, air = (np.median(mr[inside(tissues, name)]) for name in ("fat", "muscle", "air"))
    cortex = np.median(mr[tissues.labels == NAMES.index("cortex")])
    assert fat > 1.7 * muscle
    assert muscle > 2 * cortex > 4 * air
    assert mr.min() >= 0


def test_mr_phantom_shows_white_matter_brighter_than_gray_and_fluid():
    tissues = made_here._anatomy(1, slices=10, matrix=128, seed=5)
    mr = mr_phantom(1, slices=10, matrix=128, seed=5).array
    white, gray, fluid = (np.median(mr[inside(tissues, name, 1)]) for name in ("white matter", "gray matter", "fluid"))
    assert white > 1.15 * gray
    assert gray > 1.5 * fluid


def test_mr_phantom_air_holds_rayleigh_noise():
    air = mr_phantom(4, slices=10, matrix=96, seed=5).array[:, :5].ravel()
    assert air.mean() == pytest.approx(12 * np.sqrt(np.pi / 2), rel=0.05)
    assert air.std() == pytest.approx(12 * np.sqrt(2 - np.pi / 2), rel=0.05)


def test_mr_phantom_tissue_varies_with_coil_bias_and_texture():
    tissues = made_here._anatomy(4, slices=10, matrix=128, seed=5)
    mr = mr_phantom(4, slices=10, matrix=128, seed=5).array
    muscle = inside(tissues, "muscle")
    smooth = ndimage.gaussian_filter(mr * muscle, (1, 6, 6)) / np.maximum(
        ndimage.gaussian_filter(muscle * 1.0, (1, 6, 6)), 0.1
    )
    assert smooth[muscle].std() > 0.03 * mr[muscle].mean(), "the coil's bias"
    assert (mr - smooth)[muscle].std() > 1.3 * 12, "texture beyond noise"


def test_full_dose_pet_phantom_is_finer_and_less_noisy_than_pet_beside_ct():
    _, beside = phantom_volumes(4, slices=10, matrix=96, seed=5)
    full = pet_phantom(4, slices=10, matrix=96, seed=5)
    assert full.spacing_mm[0] == 4
    assert full.array.shape == (9, 88, 88)
    # muscle differs little from slice to slice: what differs is noise
    noises = [np.median(np.abs(np.diff(one.array[:, one.array.min(0) > 0.5], axis=0))) for one in (beside, full)]
    assert noises[1] < 0.6 * noises[0]
    assert full.array.max() > 4, "a lesion"
