"""Makes a small prepared data set of phantoms."""

from pathlib import Path

from medgan.data.atomic_write import write_atomically
from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.data.prepare.split import KEY_FILE
from medgan.tasks import TASKS

KNOWN_KEY = bytes(32)
"""Roles follow from a data set's key. Nobody stands behind phantoms, so that theirs may be known, and the same."""


def prepared_phantoms(folder: Path, *, size: int, patients: int = 6, slices: int = 24) -> PreparedDataset:
    """Writes PET and CT of phantoms as DICOM and prepares them; each patient has the same role every time.

    Args:
        folder: empty folder for all files.
        size: rows and columns of a slice, in pixels.
        patients: number of patients, at least 3, so that each role has one.
    """
    (folder / "datasets").mkdir(parents=True)
    write_atomically(folder / "datasets" / KEY_FILE, KNOWN_KEY)
    source = write_phantoms(folder / "phantoms", patients=patients, slices=slices, matrix=size)
    request = PrepareRequest(source, TASKS["pet2ct"], size=size, datasets=folder / "datasets", processes=1)
    return PreparedDataset.open(prepare(request))
