"""Makes a small prepared data set of phantoms."""

from pathlib import Path

from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.tasks import TASKS


def prepared_phantoms(folder: Path, *, size: int, patients: int = 6, slices: int = 24) -> PreparedDataset:
    """Writes PET and CT of phantoms as DICOM and prepares them.

    Args:
        folder: empty folder for all files.
        size: rows and columns of a slice, in pixels.
        patients: number of patients, at least 3, so that each role has one.
    """
    source = write_phantoms(folder / "phantoms", patients=patients, slices=slices, matrix=size)
    request = PrepareRequest(source, TASKS["pet2ct"], size=size, datasets=folder / "datasets", processes=1)
    return PreparedDataset.open(prepare(request))
