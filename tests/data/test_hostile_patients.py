"""A patient whose images crash their reader is set aside with the reason; the others are prepared."""

import shutil
from pathlib import Path

import hostile_dicom as hostile
import pydicom
import pytest

from medgan.data.dataset import PreparedDataset
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.tasks import TASKS

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def source(phantoms, tmp_path):
    return Path(shutil.copytree(phantoms, tmp_path / "dicom"))


def prepared(source, tmp_path):
    return PreparedDataset.open(prepare(PrepareRequest(source, TASKS["pet2ct"], 32, tmp_path / "datasets")))


@pytest.mark.parametrize("path", hostile.CRASHES, ids=lambda path: path.stem)
def test_frame_that_crashes_its_reader_costs_its_patient_only(source, tmp_path, path):
    pet = sorted((source / "PHANTOM-0003" / "PT").iterdir())
    for each in pet:
        dataset = pydicom.dcmread(each)
        dataset.Rows = dataset.Columns = 64
        dataset.PixelData = bytes(2 * 64 * 64)
        dataset.save_as(each)
    hostile.put_frame(pet[2], path.read_bytes(), path.stem.split("_")[1])
    dataset = prepared(source, tmp_path)
    assert len(dataset.manifest.patients) == 5
    (reason,) = dataset.manifest.set_aside
    assert "crashed (SIG" in reason or "the compressed frame of slice 2 has" in reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"PixelSpacing": ["1e-6", "1e-6"]}, "Pixel Spacing of 1e-06 mm"), ({"Rows": 60000}, "60000 Rows")],
)
def test_header_beyond_bounds_costs_its_patient_only(source, tmp_path, changes, reason):
    for each in (source / "PHANTOM-0003" / "PT").iterdir():
        dataset = pydicom.dcmread(each)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(each)
    dataset = prepared(source, tmp_path)
    assert len(dataset.manifest.patients) == 5
    assert reason in dataset.manifest.set_aside[0]
