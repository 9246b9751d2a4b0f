"""Find and read NIfTI images; what their headers leave open, the file names say."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK

from medgan.data.dicom.geometry import Plane
from medgan.data.plausibility import check_values
from medgan.data.series import Problem, Series
from medgan.data.volume import Volume
from medgan.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
MODALITIES = {
    "ct": "CT",
    **dict.fromkeys(("pet", "pt", "suv"), "PT"),
    **dict.fromkeys(("mr", "mri", "t1", "t2", "flair", "pd", "t1w", "t2w"), "MR"),
}
"""A part of the file name, without case -> DICOM Modality."""
MASKS = frozenset(["mask", "seg", "dseg", "label", "labels"])
"""Parts of the file name, without case, of what holds no intensities."""
SHARED = "nifti"
"""Frame of reference of every NIfTI image, and study without a session: their geometry must tell who shares a place."""
ONE_FOLDER = (
    "NIfTI: the folder that is to name the patient stands in several places; name him in the files: sub-ID_ct.nii"
)
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9+]+)(?:_(ses-[A-Za-z0-9+]+))?(?=[_\-. ]|$)")


class _Name(NamedTuple):
    """What the name of a file says."""

    patient_id: str
    session: str
    is_told_by_folder: bool
    modalities: frozenset[str]
    is_mask: bool


def is_nifti(path: Path) -> bool:
    """Whether the name is one of a NIfTI image."""
    return path.name.lower().endswith(SUFFIXES)


def find_nifti(paths: Sequence[Path], folder: Path, passed_over: Counter[str]) -> tuple[list[Series], list[Problem]]:
    """A series for each image, by its header and its name.

    Parts of the name lie between `_`, `-`, `.` and spaces. One of them tells the modality, the rest is the patient's
    id; where there is no rest, the id is the name of the folder that holds the file, the only one of that name. A name
    that begins with `sub-` and a label tells the patient by these alone, and the study by `ses-` and a label after
    them, whatever run follows (BIDS, "Entities").

    Args:
        paths: NIfTI images below `folder`.
        folder: what their paths are told from.
        passed_over: counts masks, and paths that the NIfTI library could not open, by reason.

    Returns:
        The images that can be used, and those that cannot.
    """
    series, problems = [], []
    names = {path: _named(path) for path in paths}
    folders: dict[str, set[Path]] = defaultdict(set)
    for path, name in names.items():
        if name.is_told_by_folder:
            folders[name.patient_id].add(path.parent)
    for path, name in names.items():
        reason = _reason_to_pass_over(path, name)
        if reason:
            passed_over[reason] += 1
            continue
        several = name.is_told_by_folder and len(folders[name.patient_id]) > 1
        found = Problem(name.patient_id, ONE_FOLDER) if several else _series(path, folder, name)
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
        with _quiet():
            image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
        whole = _num_bytes(path) >= _num_bytes_wanted(path)  # what is cut off, the NIfTI library reads as 0
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise InputError("E-NIFTI-01", modality=modality) from error
    if not whole:
        raise InputError("E-NIFTI-02", modality=modality)
    array = SimpleITK.GetArrayFromImage(image)
    if array.shape != (len(series.files), *series.planes[0].size):
        raise InputError("E-NIFTI-03", modality=modality)
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
    with _quiet():
        reader.ReadImageInformation()
    return reader


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's warnings, which write the path to the terminal."""
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(before)


def _reason_to_pass_over(path: Path, name: _Name) -> str:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:  # the NIfTI library would end the process
        return "path that is not UTF-8"
    return "mask or label image" if name.is_mask else ""


def _series(path: Path, folder: Path, name: _Name) -> Series | Problem:
    patient_id = name.patient_id
    if len(name.modalities) != 1:
        got = " and ".join(sorted(name.modalities)) or "none"
        return Problem(patient_id, f"NIfTI: expected one of {', '.join(MODALITIES)} in the file name; got {got}")
    (modality,) = name.modalities
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
        study_uid=name.session or SHARED,
        series_uid=str(path.relative_to(folder)),
        frame_of_reference=SHARED,
        modality=modality,
        files=(path,) * len(planes),
        frames=frames,
        planes=planes,
    )


def _named(path: Path) -> _Name:
    name = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    subject = _SUBJECT.match(name)
    parts = re.split(r"([_\-. ]+)", name[subject.end() :] if subject else name)  # names and separators in turn
    rest = ""
    for separator, part in zip(["", *parts[1::2]], parts[::2], strict=True):
        if part.lower() not in MODALITIES:
            rest += separator + part if rest else part
    words = {part.lower() for part in parts}
    return _Name(
        patient_id=subject[1] if subject else rest or path.absolute().parent.name,
        session=(subject[2] or "") if subject else "",
        is_told_by_folder=not subject and not rest,
        modalities=frozenset(MODALITIES[word] for word in words if word in MODALITIES),
        is_mask=bool(words & MASKS),
    )


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
