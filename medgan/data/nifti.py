"""Find and read NIfTI images; what their headers leave open, the file names say."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK

from medgan.data.catalogue import Problem, Series
from medgan.data.geometry import Plane
from medgan.data.plausible import check_values
from medgan.data.volume import Volume
from medgan.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
MODALITIES = {
    "ct": "CT",
    **dict.fromkeys(("pet", "pt", "suv"), "PT"),
    **dict.fromkeys(("mr", "mri", "t1", "t2", "flair", "pd", "t1w", "t2w"), "MR"),
}
"""A part of the file name, without case -> DICOM Modality."""
SHARED = "nifti"
"""Study and frame of reference of every NIfTI image: whether two show the same place, their geometry must tell."""


def is_nifti(path: Path) -> bool:
    """Whether the name is one of a NIfTI image."""
    return path.name.lower().endswith(SUFFIXES)


def find_nifti(paths: Sequence[Path], folder: Path) -> tuple[list[Series], list[Problem]]:
    """A series for each image, by its header and its name.

    Parts of the name lie between `_`, `-`, `.` and spaces. One of them tells the modality, the rest is the patient's
    id; where there is no rest, the id is the name of the folder that holds the file.

    Args:
        paths: NIfTI images below `folder`.
        folder: what their paths are told from.

    Returns:
        The images that can be used, and those that cannot.
    """
    series, problems = [], []
    for path in paths:
        found = _series(path, folder)
        if isinstance(found, Series):
            series.append(found)
        else:
            problems.append(found)
    return series, problems


def read_nifti(series: Series) -> Volume:
    """The voxels of an image as they are stored: HU (CT), SUV (PT) or arbitrary units (anything else).

    The NIfTI library reads NaN as 0.

    Returns:
        float32 (slices, rows, columns), slices in the order of `series.frames`.

    Raises:
        InputError: the image cannot be read, or its values are none of its modality.
    """
    affine = series.affine
    path, modality = series.files[0], series.modality
    try:
        image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
        whole = _num_bytes(path) >= _num_bytes_wanted(path)  # what is cut off, the NIfTI library reads as 0
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{modality}: expected a NIfTI image; its voxels cannot be read") from error
    if not whole:
        raise InputError(f"{modality}: expected a NIfTI image; its voxels cannot be read: the file is cut off")
    array = SimpleITK.GetArrayFromImage(image)
    if array.shape != (len(series.files), *series.planes[0].size):
        raise InputError(f"{modality}: the NIfTI image changed while it was read")
    array = array[list(series.frames)]
    check_values(array, modality)
    return Volume(array, affine, series.frame_of_reference, series.unit)


def _num_bytes(path: Path) -> int:
    """Of the file, or of what is packed in it."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with gzip.open(path) as file:
        return sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))


def _num_bytes_wanted(path: Path) -> float:
    reader = _header(path)
    start, bits = float(reader.GetMetaData("vox_offset")), int(reader.GetMetaData("bitpix"))
    return start + math.prod(reader.GetSize()) * bits / 8


def _header(path: Path) -> SimpleITK.ImageFileReader:
    """Raises RuntimeError where the file is no image."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _series(path: Path, folder: Path) -> Series | Problem:
    patient_id, modalities = _named(path)
    if len(modalities) != 1:
        got = " and ".join(sorted(modalities)) or "none"
        return Problem(patient_id, f"NIfTI: expected one of {', '.join(MODALITIES)} in the file name; got {got}")
    (modality,) = modalities
    try:
        reader = _header(path)
    except RuntimeError:
        return Problem(patient_id, f"{modality}: expected a NIfTI image; its header cannot be read")
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        return Problem(
            patient_id,
            f"{modality}: expected a NIfTI image of 3 axes and 1 value a voxel; "
            f"got {reader.GetDimension()} axes and {reader.GetNumberOfComponents()}",
        )
    frames, planes = _planes(reader)
    return Series(
        patient_id=patient_id,
        study_uid=SHARED,
        series_uid=str(path.relative_to(folder)),
        frame_of_reference=SHARED,
        modality=modality,
        files=(path,) * len(planes),
        frames=frames,
        planes=planes,
    )


def _named(path: Path) -> tuple[str, set[str]]:
    """The patient's id and the modalities in the name of a file."""
    name = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    parts = re.split(r"([_\-. ]+)", name)  # names and separators in turn
    rest = ""
    for separator, part in zip(["", *parts[1::2]], parts[::2], strict=True):
        if part.lower() not in MODALITIES:
            rest += separator + part if rest else part
    return rest or path.absolute().parent.name, {
        MODALITIES[part.lower()] for part in parts if part.lower() in MODALITIES
    }


def _planes(reader: SimpleITK.ImageFileReader) -> tuple[tuple[int, ...], tuple[Plane, ...]]:
    """The number of each slice in the file, and where it lies, sorted along the normal of the planes.

    SimpleITK gives DICOM's coordinates (LPS).
    """
    columns, rows, num_slices = reader.GetSize()
    column_mm, row_mm, slice_mm = reader.GetSpacing()
    directions = np.reshape(reader.GetDirection(), (3, 3))
    first = Plane(
        position=tuple(reader.GetOrigin()),
        orientation=(*directions[:, 0].tolist(), *directions[:, 1].tolist()),
        pixel_spacing=(row_mm, column_mm),
        size=(rows, columns),
    )
    step = slice_mm * directions[:, 2]
    frames = tuple(range(num_slices) if step @ first.normal > 0 else reversed(range(num_slices)))
    return frames, tuple(first._replace(position=tuple((first.position + frame * step).tolist())) for frame in frames)
