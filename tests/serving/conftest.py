"""Writes a small PET series to disk, and makes networks with known outputs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid
from torch import nn

from medgan.config import Config, with_values
from medgan.data.dicom.writer import ModelFacts
from medgan.data.volume import Volume
from medgan.inference.saved_model import ModelManifest, save_model
from medgan.inference.translator import Translator
from medgan.tasks import TASKS
from medgan.training.build_networks import build_generator

AXIAL = np.array([[4.0, 0, 0, -30.5], [0, 5.0, 0, -40.25], [0, 0, 3.27, -881.3], [0, 0, 0, 1]])


def oblique_affine() -> np.ndarray:
    """Returns axes turned by 20 degrees about x, then by 30 about z, with spacings of 4, 5 and 3.27 mm."""
    a, b = np.deg2rad(20), np.deg2rad(30)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = AXIAL.copy()
    affine[:3, :3] = about_z @ about_x @ np.diag([4.0, 5.0, 3.27])
    return affine


@pytest.fixture(params=["axial", "oblique"])
def affine(request: pytest.FixtureRequest) -> np.ndarray:
    return AXIAL if request.param == "axial" else oblique_affine()


@pytest.fixture
def facts() -> ModelFacts:
    return ModelFacts(name="medgan-pet2ct", version="7", digest="ab" * 32)


def pet_headers(volume: Volume, *, patient: str = "P1") -> list[Dataset]:
    """Returns a PET header for each slice, as a scanner would write it."""
    study, series = generate_uid(), generate_uid()
    headers = []
    for index in range(len(volume.array)):
        header = Dataset()
        header.SpecificCharacterSet = "ISO_IR 100"
        header.SOPClassUID, header.SOPInstanceUID = PositronEmissionTomographyImageStorage, generate_uid()
        header.PatientName, header.PatientID, header.PatientSex = "Grün^Eva", patient, "F"
        header.PatientBirthDate, header.PatientWeight = "19500101", "71"
        header.StudyInstanceUID, header.SeriesInstanceUID, header.SeriesNumber = study, series, 3
        header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20200102", "101112", "S1", "A1"
        header.ReferringPhysicianName, header.StudyDescription = "Doe^John", "PET whole body"
        header.InstitutionName, header.PatientPosition = "General Hospital", "HFS"
        header.Modality, header.Units, header.SUVType, header.CorrectedImage = "PT", "GML", "BW", ["DECY", "ATTN"]
        header.FrameOfReferenceUID, header.PositionReferenceIndicator = volume.frame_of_reference, "XY"
        header.ImagePositionPatient = [f"{x:.10g}" for x in (volume.affine @ (0, 0, index, 1))[:3]]
        header.ImageOrientationPatient = [f"{x:.12f}" for x in volume.directions[:, :2].T.ravel()]
        header.PixelSpacing = [f"{volume.spacing_mm[1]:.10g}", f"{volume.spacing_mm[0]:.10g}"]
        headers.append(header)
    return headers


@pytest.fixture
def volume(affine: np.ndarray) -> Volume:
    """Returns float32 (3, 6, 8) of SUV 0 to 10, in steps of 1/3200."""
    stored = np.random.default_rng(0).integers(0, 32000, (3, 6, 8))
    return Volume((stored / 3200).astype(np.float32), affine, generate_uid(), "SUV")


@pytest.fixture
def headers(volume: Volume) -> list[Dataset]:
    return pet_headers(volume)


def write_pet(folder: Path, volume: Volume, headers: list[Dataset]) -> None:
    """Writes a volume as a PET series, a file for each slice."""
    folder.mkdir(parents=True)
    for index, header in enumerate(headers):
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.Rows, header.Columns = volume.array.shape[1:]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.PixelRepresentation = 15, 1
        header.RescaleSlope, header.RescaleIntercept = "0.0003125", "0"
        header.PixelData = np.rint(volume.array[index] * 3200).astype("<i2").tobytes()
        pydicom.dcmwrite(folder / f"{index}.dcm", header, enforce_file_format=True)


@pytest.fixture
def put_series() -> Callable[..., None]:
    """Writes a volume of 0 to 10 as a PET series, with changes of its headers."""

    def put(folder: Path, volume: Volume, **changes: object) -> None:
        headers = pet_headers(volume)
        for header in headers:
            for keyword, value in changes.items():
                setattr(header, keyword, value)
        write_pet(folder, volume, headers)

    return put


@pytest.fixture
def pet_folder(tmp_path: Path, volume: Volume, headers: list[Dataset]) -> Path:
    write_pet(tmp_path / "source" / "one", volume, headers)
    return tmp_path / "source"


class Identity(nn.Module):
    """Stands for a network that returns its input; requires sides that are multiples of 8, and [-1, 1]."""

    divisor = 8

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        assert source.shape[2] % self.divisor == 0 and source.shape[3] % self.divisor == 0
        assert source.dtype == torch.float32 and source.abs().max() <= 1
        return source


@pytest.fixture
def translator_of() -> Callable[..., Translator]:
    """Makes translators of a network; the default is 4 mm, 16 x 16 and the windows of the task."""
    task = TASKS["pet2ct"]

    def build(network: nn.Module | None = None, *, spacing_mm: float = 4.0, size: int = 16) -> Translator:
        return Translator(network=network or Identity(), task=task, spacing_mm=spacing_mm, size=size)

    return build


@pytest.fixture
def add_patient(pet_folder: Path, volume: Volume) -> Callable[[str], None]:
    """Adds the series of one more patient to the source folder."""
    return lambda patient: write_pet(pet_folder / patient, volume, pet_headers(volume, patient=patient))


# Synthetic Data (0008,001C) came into the Standard after 2023; dicom3tools of 2022, which Debian has, does not know it.
NEWER_THAN_THE_VALIDATOR = "is not a recognized standard attribute - (0x0008,0x001c)"


@pytest.fixture
def dciodvfy_errors() -> Callable[[Path], list[str]]:
    """Returns the errors that the validator of dicom3tools finds in a CT, MR or PET image."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")

    def errors(path: Path) -> list[str]:
        ran = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
        lines = (ran.stdout + ran.stderr).splitlines()
        assert {"CTImage", "MRImage", "PETImage"} & set(lines), lines
        return [line for line in lines if line.startswith("Error") and NEWER_THAN_THE_VALIDATOR not in line]

    return errors


@pytest.fixture
def config() -> Config:
    """Configures a small generator for 16 x 16 slices."""
    return with_values(Config(), {"data.size": 16, "generator.base_channels": 4})


@pytest.fixture
def manifest(config: Config) -> ModelManifest:
    return ModelManifest(
        name="medgan-pet2ct",
        task="pet2ct",
        config=config.model_dump(mode="json"),
        spacing_mm=4.0,
        size=16,
        source_window=(0.0, 10.0),
        target_window=(-1000.0, 2000.0),
        data_digest="d1",
    )


@pytest.fixture
def model_folder(tmp_path: Path, config: Config, manifest: ModelManifest) -> Path:
    """Saves a model with 1.5 times the weights of a new network."""
    generator = build_generator(config)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1.5)
    save_model(tmp_path / "model", generator_state=generator.state_dict(), manifest=manifest)
    return tmp_path / "model"
