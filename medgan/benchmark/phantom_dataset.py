"""A small prepared data set of phantoms, made on the spot."""

from __future__ import annotations

from pathlib import Path

from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.tasks import TASKS


def prepared_phantoms(folder: Path, *, size: int, patients: int = 6, slices: int = 24) -> PreparedDataset:
    """PET and CT of phantoms, written as DICOM and prepared.

    Args:
        folder: empty, for all of it.
        size: rows and columns of a slice, in pixels.
        patients: at least 3, to have one of each role.
        slices: of each.
    """
    source = write_phantoms(folder / "phantoms", patients=patients, slices=slices, matrix=size)
    request = PrepareRequest(source, TASKS["pet2ct"], size=size, datasets=folder / "datasets", processes=1)
    return PreparedDataset.open(prepare(request))
