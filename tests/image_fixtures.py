"""Fixtures of image series on disk, for the tests of `medgan.data` and `medgan.deid`."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.tasks import TASKS

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
REAL = Path(__file__).parents[2] / "shared" / "data" / "sts_petct"


def write_series(
    folder: Path, *, modality="CT", patient="P1", study="1.2.3", frame="1.2.9", series=None, num=4, **more
):
    """Writes a small series; takes `positions`, `pixels`, `orientation` and any DICOM keyword."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = more.pop("positions", [(-10.0, 5.0, 3.0 * index) for index in range(num)])
    pixels = more.pop("pixels", 20 * np.arange(5 * 6, dtype=np.int16).reshape(5, 6))
    orientation = more.pop("orientation", [1, 0, 0, 0, 1, 0])
    series = series or generate_uid(entropy_srcs=[patient, study, modality, str(folder)])
    for index, position in enumerate(positions):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID = SOP_CLASSES.get(modality, CTImageStorage)
        header.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(index)])
        header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID = patient, study, series
        header.FrameOfReferenceUID, header.Modality = frame, modality
        header.ImagePositionPatient, header.ImageOrientationPatient = list(position), orientation
        header.PixelSpacing, header.RescaleSlope, header.RescaleIntercept = [2.0, 1.5], 2, -1000
        header.Rows, header.Columns = pixels.shape
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.PixelData = (pixels + index).astype("<i2").tobytes()
        for keyword, value in more.items():
            setattr(header, keyword, value(index) if callable(value) else value)
        # file names are in reverse order of the slices: sorting by name gives the wrong order
        header.save_as(folder / f"{modality}-{len(positions) - index:03d}", enforce_file_format=True)
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "dicom", patients=6, slices=6, matrix=48)


@pytest.fixture(scope="session")
def prepared(phantoms, tmp_path_factory):
    """The six small patients prepared at 32 pixels."""
    request = PrepareRequest(phantoms, TASKS["pet2ct"], 32, tmp_path_factory.mktemp("datasets"))
    return PreparedDataset.open(prepare(request))


@pytest.fixture
def make_series():
    return write_series


@pytest.fixture(scope="session")
def real():
    """The folder of the real patients."""
    if not REAL.is_dir():
        pytest.skip(f"the real patients are not at {REAL}")
    return REAL
