"""Finds image series in a folder of any layout, and reads one into a Volume in physical units."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pydicom

from medgan.data.dicom.find_dicom import UNREADABLE, find_dicom
from medgan.data.dicom.pixels import read_dicom, slice_headers
from medgan.data.nifti import find_nifti, is_nifti, read_nifti
from medgan.data.plausibility import BOUNDS, Bounds
from medgan.data.series import Series, Survey
from medgan.data.unpack import is_packed, members
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.processes.crew import HERE, Callers

UNREADABLE_FOLDER = "unreadable folder (permission)"
HIDDEN = "hidden file"
BAD_LINK = "link in a circle or broken"
PACKED = "packed file"


def survey(
    folder: Path, *, callers: Callers = HERE, packed: Literal["open", "leave"] = "open", patient_level: int = 0
) -> Survey:
    """Returns every series of CT, MR and PET slices and every NIfTI image below `folder`, and what else is there.

    Links are followed, each folder is read once. A slice that is there twice counts once. If one slice of a series
    cannot be used, the series is a problem of its patient.

    Args:
        callers: who reads the headers; children, where the files are not trusted.
        packed: "leave": zip files and files compressed with gzip are no images, except NIfTI images (.nii.gz).
        patient_level: see `find_nifti`.

    Raises:
        InputError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise InputError("E-READ-01", folder=folder)
    passed_over: Counter[str] = Counter()
    images, others = _nifti_and_others(folder, passed_over, packed)
    dicom, faults = find_dicom(others, passed_over, callers)
    nifti, problems, level = find_nifti(images, folder, passed_over, callers, patient_level=patient_level)
    if not (dicom or nifti or faults or problems):
        raise InputError("E-READ-02", folder=folder, reasons=counted_reasons(passed_over))
    series = dicom + nifti
    problems = faults + problems
    series.sort(key=lambda one: (one.patient_id, one.study_uid, one.series_uid, one.modality, one.frame_of_reference))
    problems.sort(key=lambda one: (one.patient_id, one.reason))
    return Survey(series, problems, dict(+passed_over), level)


def counted_reasons(passed_over: Counter[str]) -> str:
    """Returns why files were passed over: "5 files: 3 not DICOM, 2 localizer"."""
    total = sum(passed_over.values())
    reasons = ", ".join(f"{number} {reason}" for reason, number in passed_over.most_common() if number)
    return f"{total} file{'s' * (total != 1)}{': ' * bool(reasons)}{reasons}"


def find_series(folder: Path) -> list[Series]:
    """Returns the series of `survey` without its problems.

    Raises:
        InputError: the folder is missing, or holds no series that can be used.
    """
    found = survey(folder)
    if not found.series:
        reasons = "; ".join(sorted({problem.reason.rstrip(".") for problem in found.problems})[:3])
        raise InputError("E-READ-03", folder=folder, reasons=reasons)
    return found.series


def read_volume(series: Series, bounds: Bounds = BOUNDS) -> Volume:
    """Returns the voxels of a series in HU (CT), SUV body weight (PT) or arbitrary units (anything else).

    Returns:
        float32 (slices, rows, columns), slices in the order of `series.files`; on a regular grid where the series is
        `resampled`. Padding has the value of the background.

    Raises:
        InputError: the slices are no regular stack or cannot be decoded, their unit is unknown, or their values are
            implausible. The message holds the modality and numbers only, so that it may be logged.
    """
    return read_nifti(series, bounds) if is_nifti(series.files[0]) else read_dicom(series, bounds)


def representative_headers(series: Series) -> list[pydicom.Dataset]:
    """Returns the header of every slice without its pixels, in the order of `series.files`.

    Raises:
        InputError: the series is a NIfTI image, or a file changed since it was found.
    """
    if is_nifti(series.files[0]):
        raise InputError("E-READ-04", modality=series.modality)
    return slice_headers(series)


def files_below(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    """Yields the files below a folder by name, each folder's own first; follows links, reads each folder once.

    Args:
        folder: folder to search; the yielded paths begin with it.
        passed_over: counts, by reason, what cannot be followed or read.
    """
    waiting, seen = [folder], set()
    while waiting:
        folder = waiting.pop()
        try:
            state = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            passed_over[UNREADABLE_FOLDER if isinstance(error, PermissionError) else BAD_LINK] += 1
            continue
        if (state.st_dev, state.st_ino) in seen:
            passed_over[BAD_LINK] += 1
            continue
        seen.add((state.st_dev, state.st_ino))
        folders = []
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                passed_over[UNREADABLE if isinstance(error, PermissionError) else BAD_LINK] += 1
                continue
            if stat.S_ISDIR(mode):
                folders.append(folder / entry.name)
            elif stat.S_ISREG(mode):
                yield folder / entry.name
            else:
                passed_over["no regular file"] += 1
        waiting.extend(reversed(folders))


def _nifti_and_others(
    folder: Path, passed_over: Counter[str], packed: Literal["open", "leave"]
) -> tuple[list[Path], list[Path]]:
    images: list[Path] = []
    others: list[Path] = []
    paths = files_below(folder, passed_over)
    for path in members(paths, passed_over) if packed == "open" else paths:
        if path.name.startswith("."):
            passed_over[HIDDEN] += 1
        elif packed == "leave" and is_packed(path) and not is_nifti(path):
            passed_over[PACKED] += 1
        else:
            (images if is_nifti(path) else others).append(path)
    return images, others
