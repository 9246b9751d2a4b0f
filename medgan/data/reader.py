"""Finds image series in a folder of any layout, and reads one into a Volume in physical units."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID, UID_dictionary

from medgan.data.dicom.header import Slice, damage_is, read_slices
from medgan.data.dicom.multiframe import frame_headers
from medgan.data.dicom.suv import suv_factor
from medgan.data.nifti import find_nifti, is_nifti, read_nifti
from medgan.data.plausibility import check_values
from medgan.data.prepare.processes import each
from medgan.data.series import UNITS, Problem, Series, Survey
from medgan.data.volume import Volume
from medgan.errors import InputError

CHUNK = 100  # files whose headers are read in one go
WORTH_PROCESSES = 900  # files; fewer are read in less time than a process takes to start
UNREADABLE = "unreadable (permission)"
UNREADABLE_FOLDER = "unreadable folder (permission)"
HIDDEN = "hidden file"
BAD_LINK = "link in a circle or broken"


def survey(folder: Path, *, processes: int = 1) -> Survey:
    """Returns every series of CT, MR and PET slices and every NIfTI image below `folder`, and what else is there.

    Links are followed, each folder is read once. A slice that is there twice counts once. If one slice of a series
    cannot be used, the series is a problem of its patient.

    Raises:
        InputError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise InputError("E-READ-01", folder=folder)
    passed_over: Counter[str] = Counter()
    images, others = _nifti_and_others(folder, passed_over)
    groups = _grouped(_read_all(others, processes), passed_over)
    series, problems = find_nifti(images, folder, passed_over)
    if not (groups or series or problems):
        raise InputError("E-READ-02", folder=folder, num_files=sum(passed_over.values()))
    for group in groups.values():
        once = _once(group, passed_over)
        faults = Counter(fault for one in once for fault in one.faults)
        if faults:
            problems.append(Problem(once[0].patient_id, _described(faults, once)))
        else:
            series.append(_sorted_series(once))
    series.sort(key=lambda one: (one.patient_id, one.study_uid, one.series_uid, one.modality, one.frame_of_reference))
    problems.sort(key=lambda one: (one.patient_id, one.reason))
    return Survey(series, problems, dict(passed_over))


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


def read_volume(series: Series) -> Volume:
    """Returns the voxels of a series in HU (CT), SUV body weight (PT) or arbitrary units (anything else).

    Returns:
        float32 (slices, rows, columns), slices in the order of `series.files`.

    Raises:
        InputError: the slices are no regular stack or cannot be decoded, their unit is unknown, or their values are
            implausible. The message holds the modality and numbers only, so that it may be logged.
    """
    if is_nifti(series.files[0]):
        return read_nifti(series)
    affine = series.affine
    with np.errstate(over="ignore", invalid="ignore"):  # the values are checked
        array, headers = _decoded(series)
        if series.modality == "PT":
            with damage_is("PT: the SUV could not be computed from the headers"):
                array *= suv_factor(headers)
    check_values(array, series.modality)
    return Volume(array, affine, series.frame_of_reference, series.unit)


def representative_headers(series: Series) -> list[pydicom.Dataset]:
    """Returns the header of every slice without its pixels, in the order of `series.files`.

    Raises:
        InputError: the series is a NIfTI image, or a file changed since it was found.
    """
    if is_nifti(series.files[0]):
        raise InputError("E-READ-04", modality=series.modality)
    with damage_is(f"{series.modality}: the headers could not be read"):
        headers = {
            path: _headers(pydicom.dcmread(path, stop_before_pixels=True)) for path in dict.fromkeys(series.files)
        }
        return [headers[path][frame] for path, frame in zip(series.files, series.frames, strict=True)]


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


def _nifti_and_others(folder: Path, passed_over: Counter[str]) -> tuple[list[Path], list[Path]]:
    images: list[Path] = []
    others: list[Path] = []
    for path in files_below(folder, passed_over):
        if path.name.startswith("."):
            passed_over[HIDDEN] += 1
        else:
            (images if is_nifti(path) else others).append(path)
    return images, others


def _grouped(found: Iterator[list[Slice] | str], passed_over: Counter[str]) -> dict[tuple[str, ...], list[Slice]]:
    groups: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    for slices in found:
        if isinstance(slices, str):
            passed_over[slices] += 1
            continue
        for one in slices:
            groups[one.group].append(one)
    return groups


def _read_all(paths: list[Path], processes: int) -> Iterator[list[Slice] | str]:
    """Returns for each file, in order, its slices or the reason why it is passed over."""
    chunks = [tuple(paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    num_processes = processes if len(paths) >= WORTH_PROCESSES else 1
    found = dict(each(_read_chunk, chunks, processes=num_processes, caller="helps"))
    return (slices for chunk in chunks for slices in found[chunk])


def _read_chunk(paths: tuple[Path, ...]) -> list[list[Slice] | str]:
    return [_slices(path) for path in paths]


def _slices(path: Path) -> list[Slice] | str:
    try:
        return read_slices(path)
    except OSError:
        return UNREADABLE


def _once(group: Sequence[Slice], passed_over: Counter[str]) -> list[Slice]:
    """Returns the slices without copies, and counts the files of the copies."""
    kept = {(one.sop_uid or one.path, one.frame, one.plane): one for one in reversed(group)}
    copies = {one.path for one in group} - {one.path for one in kept.values()}
    if copies:
        passed_over["same slice twice"] += len(copies)
    return list(reversed(kept.values()))


def _described(faults: Counter[str], slices: Sequence[Slice]) -> str:
    """Describes the most common faults: "CT: 3 of 40 slices have no Image Position (Patient), 1 of 40 has no Rows"."""
    parts = [
        f"{count} of {len(slices)}{'' if number else ' slices'} {'has' if count == 1 else 'have'} {fault}"
        for number, (fault, count) in enumerate(faults.most_common(3))
    ]
    return f"{slices[0].modality or 'image'}: {', '.join(parts)}"


def _sorted_series(slices: Sequence[Slice]) -> Series:
    planes = [one.plane for one in slices if one.plane is not None]
    order = np.argsort([plane.position for plane in planes] @ planes[0].normal, kind="stable")
    first = slices[0]
    return Series(
        patient_id=first.patient_id,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        frame_of_reference=first.frame_of_reference,
        modality=first.modality,
        files=tuple(slices[index].path for index in order),
        frames=tuple(slices[index].frame for index in order),
        planes=tuple(planes[index] for index in order),
        attenuation_corrected=all(one.attenuation_corrected for one in slices),
        phantom=first.phantom,
        synthetic=any(one.synthetic for one in slices),
    )


def _headers(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return frame_headers(dataset) if "PerFrameFunctionalGroupsSequence" in dataset else [dataset]


def _decoded(series: Series) -> tuple[np.ndarray, list[pydicom.Dataset]]:
    """Returns rescaled pixels, float32 (slices, rows, columns), and headers without pixels; reads each file once."""
    places: dict[Path, list[int]] = defaultdict(list)
    for number, path in enumerate(series.files):
        places[path].append(number)
    shape = (len(series.files), *series.planes[0].size)
    array: np.ndarray | None = None
    headers: dict[int, pydicom.Dataset] = {}
    for path, numbers in places.items():
        dataset, pixels = _pixels(path, series.modality, numbers[0], shape[1:])
        with damage_is(f"{series.modality}: the header of slice {numbers[0]} could not be read"):
            own = _headers(dataset)
        array = np.empty(shape, np.float32) if array is None else array  # not before a file proves its size
        for number in numbers:
            frame = series.frames[number]
            headers[number] = own[frame]
            array[number] = _rescaled(pixels[frame], own[frame], series.modality, number)
    assert array is not None, "a series has slices"
    return array, [headers[number] for number in range(len(series.files))]


def _pixels(path: Path, modality: str, number: int, size: tuple[int, ...]) -> tuple[pydicom.Dataset, np.ndarray]:
    """Returns a file's header without its pixels, and the pixels as stored, (frames, rows, columns)."""
    with damage_is(f"{modality}: the DICOM file of slice {number} could not be read"):
        with BytesIO(path.read_bytes()) as file:  # pydicom reads in small pieces: a fifth faster than from disk
            dataset = pydicom.dcmread(file)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        name = UID(syntax).name if syntax in UID_dictionary else "a private one"
    with damage_is(f"{modality}: the pixels of slice {number}, in the transfer syntax {name}, could not be decoded"):
        pixels = dataset.pixel_array.reshape(-1, *size)
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        dataset.pop(keyword, None)
    return dataset, pixels


def _rescaled(pixels: np.ndarray, header: pydicom.Dataset, modality: str, number: int) -> np.ndarray:
    with damage_is(f"{modality}: Rescale Slope or Rescale Intercept of slice {number} could not be read as a number"):
        slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
        if modality in UNITS and slope is None:
            raise InputError("E-READ-05", modality=modality, number=number, units=UNITS[modality])
        scale = np.float32(float(1.0 if slope is None else slope))
        offset = np.float32(float(0.0 if intercept is None else intercept))
    return pixels.astype(np.float32) * scale + offset
