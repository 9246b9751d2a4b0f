"""Finds and reads NIfTI images; the file names give what the headers lack: patient, study and modality."""

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
"""This maps a part of the file name, without case, to the DICOM Modality."""
MASKS = frozenset(["mask", "seg", "dseg", "label", "labels"])
"""A file with one of these parts in its name, without case, holds no intensities."""
SHARED = "nifti"
"""All images get this frame of reference, and this study if they name no session; geometry shows what overlaps."""
ONE_FOLDER = (
    "NIfTI: the folder that is to name the patient stands in several places; name him in the files: sub-ID_ct.nii"
)
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9+]+)(?:_(ses-[A-Za-z0-9+]+))?(?=[_\-. ]|$)")


class _Name(NamedTuple):
    """Holds what the name of a file says."""

    patient_id: str
    session: str
    named_by_folder: bool
    modalities: frozenset[str]
    is_mask: bool


def is_nifti(path: Path) -> bool:
    """Returns whether the name is that of a NIfTI image."""
    return path.name.lower().endswith(SUFFIXES)


def find_nifti(paths: Sequence[Path], folder: Path, passed_over: Counter[str]) -> tuple[list[Series], list[Problem]]:
    """Returns a series for each image, from its header and its name; and the images that cannot be used.

    Parts of the name lie between `_`, `-`, `.` and spaces. One of them gives the modality, the rest is the patient's
    id. Without a rest, the id is the name of the folder that holds the file; only one folder may have this name. If a
    name begins with `sub-` and a label, these alone give the patient, and `ses-` and a label after them the study,
    whatever run follows (BIDS, "Entities").

    Args:
        folder: folder that the stored paths are relative to.
        passed_over: counts masks, and paths that the NIfTI library could not open, by reason.
    """
    series, problems = [], []
    names = {path: _named(path) for path in paths}
    folders: dict[str, set[Path]] = defaultdict(set)
    for path, name in names.items():
        if name.named_by_folder:
            folders[name.patient_id].add(path.parent)
    for path, name in names.items():
        reason = _reason_to_pass_over(path, name)
        if reason:
            passed_over[reason] += 1
            continue
        several = name.named_by_folder and len(folders[name.patient_id]) > 1
        found = Problem(name.patient_id, ONE_FOLDER) if several else _series(path, folder, name)
        if isinstance(found, Series):
            series.append(found)
        else:
            problems.append(found)
    return series, problems


def read_nifti(series: Series) -> Volume:
    """Returns the voxels of an image as they are stored: HU (CT), SUV (PT) or arbitrary units (anything else).

    The NIfTI library reads NaN as 0.

    Returns:
        float32 (slices, rows, columns), slices in the order of `series.frames`.

    Raises:
        InputError: the image cannot be read, or its values are implausible for its modality.
    """
    affine = series.affine
    path, modality = series.files[0], series.modality
    try:
        with _quiet():
            image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
        whole = _num_bytes(path) >= _num_bytes_expected(path)  # the NIfTI library reads missing bytes as 0
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise InputError("E-NIFTI-01", modality=modality) from error
    if not whole:
        raise InputError("E-NIFTI-02", modality=modality)
    array = SimpleITK.GetArrayFromImage(image)
    wanted = (len(series.files), *series.planes[0].size)
    if array.shape != wanted:
        raise InputError("E-NIFTI-03", modality=modality, wanted=wanted, found=array.shape)
    array = array[list(series.frames)]
    check_values(array, modality)
    return Volume(array, affine, series.frame_of_reference, series.unit)


def _num_bytes(path: Path) -> int:
    """Returns the size of the file, after decompression."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with gzip.open(path) as file:
        return sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))


def _num_bytes_expected(path: Path) -> float:
    reader = _header(path)
    start, bits = float(reader.GetMetaData("vox_offset")), int(reader.GetMetaData("bitpix"))
    return start + math.prod(reader.GetSize()) * bits / 8


def _header(path: Path) -> SimpleITK.ImageFileReader:
    """Returns a reader of the header; raises RuntimeError if the file is no image."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    with _quiet():
        reader.ReadImageInformation()
    return reader


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides ITK's warnings, which write the path to the terminal."""
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
    patient_id, session = subject.groups("") if subject else ("", "")
    parts = re.split(r"([_\-. ]+)", name[subject.end() :] if subject else name)  # names and separators in turn
    rest = ""
    for separator, part in zip(["", *parts[1::2]], parts[::2], strict=True):
        if part.lower() not in MODALITIES:
            rest += separator + part if rest else part
    words = {part.lower() for part in parts}
    return _Name(
        patient_id=patient_id or rest or path.absolute().parent.name,
        session=session,
        named_by_folder=not patient_id and not rest,
        modalities=frozenset(MODALITIES[word] for word in words & MODALITIES.keys()),
        is_mask=bool(words & MASKS),
    )


def _planes(reader: SimpleITK.ImageFileReader) -> tuple[tuple[int, ...], tuple[Plane, ...]]:
    """Returns the number of each slice in the file, and its plane (LPS), sorted along the normal of the planes."""
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
