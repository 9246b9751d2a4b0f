import numpy as np
import pydicom
import pytest

from medgan.data.anatomy import ANATOMIES
from medgan.data.pairing import pair
from medgan.data.phantoms import phantom_volumes, write_phantoms
from medgan.data.resample import grid_of, resample
from medgan.data.series import find_series, read_volume
from medgan.errors import InputError
from medgan.tasks import TASKS


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path):
    made = [write_phantoms(tmp_path / name, patients=2, slices=3, matrix=32, seed=seed)
            for name, seed in (("a", 1), ("b", 1), ("c", 2))]  # fmt: skip
    assert contents(made[0]) == contents(made[1])
    assert contents(made[0]) != contents(made[2])


def test_a_complete_folder_is_left_alone(tmp_path):
    folder = write_phantoms(tmp_path / "a", patients=1, slices=3, matrix=32)
    times = [path.stat().st_mtime_ns for path in folder.rglob("*")]
    write_phantoms(folder, patients=1, slices=3, matrix=32)
    assert [path.stat().st_mtime_ns for path in folder.rglob("*")] == times


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="expected no folder, an empty one or the same phantoms"):
        write_phantoms(tmp_path)


@pytest.mark.parametrize("name", ["patients", "slices", "matrix"])
def test_too_small_a_count_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"phantoms: expected {name} of at least .*, got 0"):
        write_phantoms(tmp_path / "a", **{name: 0})


@pytest.mark.parametrize("number", range(1, 5), ids=list(ANATOMIES))
def test_dicom_keeps_the_values_in_hu_and_suv(tmp_path, number):
    folder = write_phantoms(tmp_path / "a", patients=number, slices=4, matrix=48, seed=3)
    series = {one.modality: one for one in find_series(folder / f"PHANTOM-{number:04d}")}
    for expected in phantom_volumes(number, slices=4, matrix=48, seed=3):
        got = read_volume(series["CT" if expected.unit == "HU" else "PT"])
        assert got.unit == expected.unit
        np.testing.assert_allclose(got.affine, expected.affine, atol=1e-6)
        np.testing.assert_allclose(got.array, expected.array, atol=0.51 if expected.unit == "HU" else 1e-3)


def test_pet_lies_on_a_grid_of_its_own_over_the_ct(phantoms):
    pairs, problems = pair(find_series(phantoms), TASKS["pet2ct"])
    assert len(pairs) == 6
    assert not problems
    pet, ct = read_volume(pairs[1].source), read_volume(pairs[1].target)
    assert not np.allclose(pet.affine, ct.affine)
    moved = resample(pet, grid_of(ct), 0).array[1:-1]
    inside = ct.array[1:-1] > -300
    assert moved[inside].mean() > 5 * moved[~inside & (ct.array[1:-1] < -950)].mean()


def test_the_headers_say_that_nobody_was_scanned(phantoms):
    for path in phantoms.glob("*/*/0001.dcm"):
        header = pydicom.dcmread(path)
        assert header.PatientIdentityRemoved == "YES"
        assert header.ManufacturerModelName == "medgan phantom"
        assert "phantom" in header.SeriesDescription
        assert header.PatientID == path.parts[-3]
