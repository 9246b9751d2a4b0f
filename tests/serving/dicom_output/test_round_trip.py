"""Images go from DICOM to the range of the networks and back, through the code of `medgan prepare` and `translate`."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from medgan.data.manifest import read_manifest
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.data.reader import find_series, read_volume
from medgan.data.volume import Volume
from medgan.inference.dicom_folder import translate_folder
from medgan.tasks import TASKS

pytestmark = pytest.mark.unit


def direction(turned_about_x, turned_about_z):
    a, b = np.deg2rad(turned_about_x), np.deg2rad(turned_about_z)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]) @ about_x


ORIENTATIONS = {
    "axial": np.eye(3),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),  # columns to the back, rows to the feet
    "oblique": direction(20, 30),
}


ANY_VALUES = {"bounds.median_suv": [0, 10], "bounds.body_share": [0, 1]}
"""Settings for an image that shows no body."""


def smooth(points):
    """Returns values from 0 to 10 that change over tens of millimeters; at points (..., 3) in mm."""
    return 5 + 5 * np.prod(np.cos(points / 40), axis=-1)


@pytest.fixture
def on_disk(put_series, tmp_path):
    """Writes a smooth image to disk as a PET or MR series of some orientation."""

    def put(modality, orientation, *, pixel_mm=4.0, shape=(5, 24, 32)):
        affine = np.eye(4)
        affine[:3, :3] = ORIENTATIONS[orientation] @ np.diag([pixel_mm, pixel_mm, 3.27])
        affine[:3, 3] = (-30.5, 40.25, -881.3)
        volume = Volume(smooth(points_of(affine, shape)).astype(np.float32), affine, generate_uid(), "SUV")
        kind = {"Modality": "MR", "SOPClassUID": MRImageStorage} if modality == "MR" else {}
        put_series(tmp_path / "in", volume, **kind)
        return tmp_path / "in"

    return put


def points_of(affine, shape):
    """Returns (slices, rows, columns, 3): the position of each voxel in mm."""
    slices, rows, columns = np.indices(shape)
    return np.stack([columns, rows, slices], axis=-1) @ affine[:3, :3].T + affine[:3, 3]


@pytest.fixture
def translated(translator_of, tmp_path, facts):
    """Translates a series with an identity network; returns the result as read from DICOM, and one header."""

    def run(task, source, *, size, **settings):
        manifest = read_manifest(
            prepare(PrepareRequest(source, task, size, tmp_path / "datasets", ANY_VALUES | settings))
        )
        translator = replace(translator_of(), task=manifest.task, spacing_mm=manifest.spacing_mm, size=manifest.size)
        (folder,) = translate_folder(translator, source, tmp_path / "out", facts=facts, progress=lambda _: None)
        (series,) = find_series(folder)
        return read_volume(series), pydicom.dcmread(series.files[0])

    return run


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("name", "modality"), [("pet_denoise", "PT"), ("mr_motion", "MR")])
def test_round_trip_on_native_grid_returns_every_voxel(
    on_disk, translated, orientation, name, modality, tmp_path, dciodvfy_errors
):
    folder = on_disk(modality, orientation)
    source = read_volume(find_series(folder)[0])
    result, header = translated(TASKS[name], folder, size=32)
    assert (header.Modality, header.SyntheticData) == (modality, "YES")
    assert result.array.shape == source.array.shape
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-3)
    low, high = (0, 20) if modality == "PT" else np.percentile(source.array, (0.5, 99.5))
    step = float(header.RescaleSlope)
    np.testing.assert_allclose(result.array, source.array.clip(low, high), rtol=1e-6, atol=step / 2 + 1e-6 * high)
    assert dciodvfy_errors(next((tmp_path / "out").iterdir())) == []


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_round_trip_on_other_grid_has_exact_place_and_small_error(on_disk, translated, orientation):
    result, _ = translated(TASKS["pet_denoise"], on_disk("PT", orientation), size=64, spacing_mm=3.0)
    assert result.spacing_mm == pytest.approx((3, 3, 3.27), abs=1e-3)
    np.testing.assert_allclose(result.directions, ORIENTATIONS[orientation], atol=1e-6)
    wanted = smooth(points_of(result.affine, result.array.shape))
    inside = (slice(None), slice(1, -1), slice(1, -1))  # at the border, values are extrapolated by half a pixel
    error = np.abs(result.array - wanted)[inside]
    assert error.max() < 0.03, "linear interpolation of this image is off by at most 0.03 of 10"


def test_derived_ct_has_place_of_source_pet(on_disk, translator_of, tmp_path, facts):
    folder = on_disk("PT", "oblique")
    translator = translator_of(size=32)
    (out,) = translate_folder(translator, folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    source, result = (read_volume(find_series(place)[0]) for place in (folder, out))
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-3)
    np.testing.assert_allclose(result.array, source.array / 10 * 3000 - 1000, atol=0.2)
