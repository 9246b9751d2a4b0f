import numpy as np
import pytest
import SimpleITK as sitk
from refusal import refusal

from medgan.data.prepare.resample import Grid, grid_of, in_plane_grid, resample
from medgan.data.reader import find_series, read_volume
from medgan.data.volume import Volume
from medgan.errors import InputError

pytestmark = pytest.mark.unit


def volume(shape=(4, 9, 11), spacing=(1.0, 1.0, 3.0), frame="1.2", seed=0):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-7, 4, 20)
    return Volume(np.random.default_rng(seed).normal(size=shape).astype(np.float32), affine, frame, "SUV")


def test_resample_to_own_grid_changes_nothing():
    image = volume()
    np.testing.assert_array_equal(resample(image, grid_of(image), 0).array, image.array)


def test_resample_to_grid_shifted_by_one_pixel_moves_voxels_by_one():
    image = volume()
    affine = image.affine.copy()
    affine[0, 3] += 1
    moved = resample(image, Grid(affine, image.array.shape, "1.2"), -5).array
    np.testing.assert_allclose(moved[:, :, :-1], image.array[:, :, 1:], atol=1e-5)
    assert (moved[:, :, -1] == -5).all()


def test_resample_keeps_linear_field_exact_on_finer_grid():
    image = volume()
    slices, rows, columns = np.indices(image.array.shape)
    ramp = image.with_array((columns + 10 * rows + 100 * slices).astype(np.float32))
    grid = in_plane_grid(ramp, spacing_mm=0.5, size=13)
    fine = resample(ramp, grid, 0).array
    np.testing.assert_allclose(np.diff(fine, axis=2), 0.5, atol=1e-3)
    assert fine[0].mean() == pytest.approx(ramp.array[0].mean(), abs=1e-3)


def test_in_plane_grid_keeps_slices_and_center():
    image = volume()
    grid = in_plane_grid(image, spacing_mm=2.0, size=8)
    np.testing.assert_allclose(grid.affine @ [3.5, 3.5, 2, 1], image.affine @ [5, 4, 2, 1])
    assert grid.shape == (4, 8, 8)


def test_resample_to_coarser_grid_does_not_alias():
    image = volume(shape=(2, 64, 64))
    stripes = image.with_array(np.broadcast_to(np.arange(64) % 2, (2, 64, 64)).astype(np.float32))
    coarse = resample(stripes, in_plane_grid(stripes, spacing_mm=4.0, size=12), 0).array
    assert np.abs(coarse - 0.5).max() < 0.02  # sigma of 1.5 pixels leaves next to nothing of the stripes


def test_resample_keeps_constant_inside_field_of_view():
    image = volume()
    flat = image.with_array(np.full(image.array.shape, 7, np.float32))
    np.testing.assert_allclose(resample(flat, in_plane_grid(flat, spacing_mm=2.5, size=3), 0).array, 7, rtol=1e-6)


def test_resample_refuses_two_frames_of_reference():
    with pytest.raises(InputError, check=refusal("E-RESAMPLE-01")):
        resample(volume(frame="1.2"), grid_of(volume(frame="1.3")), 0)


@pytest.mark.real
def test_resample_of_real_pet_equals_pointwise_interpolation(real):
    series = {one.modality: one for one in find_series(real / "STS_019")}
    pet, ct = read_volume(series["PT"]), read_volume(series["CT"])
    grid = in_plane_grid(ct, spacing_mm=1.78, size=64)
    ours = resample(pet, grid, 0).array
    image = sitk.GetImageFromArray(pet.array)
    image.SetSpacing(pet.spacing_mm)
    image.SetOrigin(pet.affine[:3, 3].tolist())
    num_checked = 0
    for index in np.random.default_rng(0).integers((0, 0, 0), grid.shape[::-1], (500, 3)):
        point = (grid.affine @ [*index, 1])[:3].tolist()
        place = image.TransformPhysicalPointToContinuousIndex(point)
        if all(0 <= at <= count - 1 for at, count in zip(place, image.GetSize(), strict=True)):
            expected = image.EvaluateAtPhysicalPoint(point, sitk.sitkLinear)
            assert ours[index[2], index[1], index[0]] == pytest.approx(expected, abs=1e-3)
            num_checked += 1
    assert num_checked > 200
