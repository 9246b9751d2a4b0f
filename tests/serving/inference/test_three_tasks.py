"""A validator, SimpleITK and pydicom accept the derived series of each task, of phantoms and of real patients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from medgan.data.dicom.writer import ModelFacts, write_derived
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.reader import find_series, read_volume, representative_headers
from medgan.data.volume import Volume
from medgan.inference.translator import Translator, translate_volume
from medgan.tasks import TASKS

REAL = Path(__file__).parents[4] / "shared" / "data" / "sts_petct"
REAL_SOURCES = {
    "pet2ct": REAL / "STS_001" / "PET",
    "mr_motion": REAL / "STS_001" / "MR_T1",
    "pet_denoise": REAL / "STS_003" / "PET",
}
Derived = tuple[Volume, list[Path]]


class Curve(nn.Module):
    """Stands for a network that changes every value and keeps values distinct."""

    divisor = 8

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return torch.sin(source * torch.pi / 2)


@pytest.fixture(scope="module", params=["phantom", "real"])
def source_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def find(task: str) -> Path:
        if request.param == "real":
            if not REAL.is_dir():
                pytest.skip(f"the real patients are not at {REAL}")
            return REAL_SOURCES[task]
        folder = tmp_path_factory.mktemp(task) / "phantoms"
        return write_phantoms(folder, task=task, patients=1, slices=5, matrix=48)

    return find


@pytest.fixture(params=sorted(TASKS))
def derived(
    request: pytest.FixtureRequest,
    source_of: Callable[[str], Path],
    translator_of: Callable[..., Translator],
    tmp_path: Path,
    facts: ModelFacts,
) -> Derived:
    """Returns a translated volume, and the files of its derived series."""
    task = TASKS[request.param]
    translator = replace(translator_of(Curve(), spacing_mm=3.7, size=64), task=task)
    series = next(one for one in find_series(source_of(task.name)) if one.modality == task.source.modality)
    volume = translate_volume(translator, read_volume(series))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "StudyID of the source series is invalid")
        files = write_derived(volume, representative_headers(series), tmp_path / "out", task=task, model=facts)
    return volume, files


def test_dciodvfy_finds_no_error_in_derived_series_of_task(
    derived: Derived, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    _, files = derived
    for path in (files[0], files[len(files) // 2], files[-1]):
        assert dciodvfy_errors(path) == []


def test_simpleitk_and_pydicom_read_same_values_in_same_place(derived: Derived) -> None:
    volume, files = derived
    image = sitk.ReadImage([str(path) for path in files])
    slices = [pydicom.dcmread(path) for path in files]
    ours = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])
    step = float(slices[0].RescaleSlope)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), ours, rtol=1e-6, atol=1e-3 * step)
    np.testing.assert_allclose(ours, volume.array, atol=0.51 * step, rtol=1e-6)
    assert len(np.unique(ours)) > 100 and {one.SyntheticData for one in slices} == {"YES"}
    np.testing.assert_allclose(image.GetOrigin(), volume.affine[:3, 3], atol=1e-5)
    np.testing.assert_allclose(image.GetSpacing(), volume.spacing_mm, atol=1e-5)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), volume.directions, atol=1e-6)
    for index, one in enumerate(slices):
        place = (volume.affine @ (0, 0, index, 1))[:3]
        np.testing.assert_allclose([float(value) for value in one.ImagePositionPatient], place, atol=1e-6)
        assert one.FrameOfReferenceUID == volume.frame_of_reference
