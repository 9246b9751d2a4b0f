"""DICOM folder in, prepared data set out: find, pair, read, resample, mask, split, write."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import medgan
from medgan.data.atomic import flush_folder, write_atomically
from medgan.data.convert import Converted, convert
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import FILE_NAME, SCHEMA_VERSION, Manifest, Patient, sealed
from medgan.data.pairing import Pair, pair
from medgan.data.series import find_series
from medgan.data.split import assign_roles, load_key, load_roles, patient_hash, store_roles
from medgan.errors import InputError
from medgan.lock import held
from medgan.tasks import Task

PREPARING_S = 6 * 3600.0
SLICES_WORTH_A_PROCESS = 500  # reading them takes as long as starting a process does
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What decides the content of a data set, besides the DICOM files."""

    task: Task
    size: int
    spacing_mm: float


def prepare(
    source: Path,
    *,
    task: Task,
    datasets: Path,
    size: int,
    spacing_mm: float | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
) -> PreparedDataset:
    """The prepared data set of a DICOM folder; made on the first call, opened on the next.

    Args:
        source: folder of DICOM files in any layout.
        task: what is translated into what.
        datasets: where data sets, their key and the patients' roles are kept.
        size: pixels along each side of a slice.
        spacing_mm: distance of pixels; by default as fine as the targets are, but with room for the largest.
        progress: called with (patients done, patients in all).
        processes: how many patients are read at once; by default one a CPU core.

    Raises:
        InputError: no folder, no DICOM, one modality only, or fewer than 3 usable patients.
    """
    if not source.is_dir():
        raise InputError(f"{source}: expected a folder of DICOM files; there is no such folder")
    datasets.mkdir(parents=True, exist_ok=True)
    # one process at a time: roles are drawn once, and the second to ask for a data set finds it made
    with held(datasets / ".lock", f"preparing {datasets}", limit_s=PREPARING_S):
        key = load_key(datasets)
        folder = datasets / f"{task.name}-{size}px-{_fingerprint(source, key, [asdict(task), size, spacing_mm])}"
        if not folder.exists():
            pairs, notes = _usable_pairs(source, key, task)
            settings = Settings(task, size, spacing_mm or _spacing_with_room(pairs, size))
            with _whole_or_nothing(folder) as part:
                results = _convert_all(pairs, part, settings, progress=progress, processes=processes)
                manifest = _manifest(pairs, results, notes, settings=settings, datasets=datasets, source=source)
                write_atomically(part / FILE_NAME, manifest.model_dump_json(indent=1).encode())
    return PreparedDataset.open(folder)


def _fingerprint(source: Path, key: bytes, settings: list) -> str:
    """12 hex digits of the settings and of every file's relative path, size and time of change."""
    digest = hmac.new(key, json.dumps([SCHEMA_VERSION, *settings]).encode(), hashlib.sha256)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"\0{path.relative_to(source)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]


def _usable_pairs(source: Path, key: bytes, task: Task) -> tuple[dict[str, Pair], list[str]]:
    """Pairs by patient hash, and notes on choices made and on patients set aside; header errors show here."""
    try:
        found, problems = pair(find_series(source), task)
    except InputError as error:
        raise InputError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
    notes = [_set_aside(patient_hash(one.patient_id, key), one.reason) for one in problems]
    pairs = {}
    for one in found:
        patient = patient_hash(one.target.patient_id, key)
        try:
            _ = one.source.affine, one.target.affine
        except InputError as error:
            notes.append(_set_aside(patient, str(error)))
            continue
        pairs[patient] = one
        if one.note:
            notes.append(f"patient {patient}: {one.note}")
    _refuse_too_few(source, len(pairs), notes)
    return dict(sorted(pairs.items())), notes


def _spacing_with_room(pairs: dict[str, Pair], size: int) -> float:
    """The median pixel spacing of the targets, or what the largest needs to fit, rounded up to 0.01 mm."""
    planes = [one.target.planes[0] for one in pairs.values()]
    native = float(np.median([plane.pixel_spacing for plane in planes]))
    largest = max(
        length * step for plane in planes for length, step in zip(plane.size, plane.pixel_spacing, strict=True)
    )
    return math.ceil(round(max(native, largest / size) * 100, 6)) / 100


def _convert_all(
    pairs: dict[str, Pair],
    part: Path,
    settings: Settings,
    *,
    progress: Progress | None,
    processes: int | None,
) -> list[Converted | str]:
    """What `convert` returns for every patient, in order."""
    one = partial(convert, task=settings.task, spacing_mm=settings.spacing_mm, size=settings.size)
    num_slices = sum(len(pair_.source.files) + len(pair_.target.files) for pair_ in pairs.values())
    worth = max(1, num_slices // SLICES_WORTH_A_PROCESS)
    results = []
    with _mapping(min(processes or os.cpu_count() or 1, worth)) as map_:
        for result in map_(one, pairs.values(), [part / patient for patient in pairs]):
            results.append(result)
            if progress:
                progress(len(results), len(pairs))
    return results


@contextmanager
def _mapping(processes: int) -> Iterator[Callable]:
    """`map`, over worker processes where more than one is wanted."""
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _manifest(
    pairs: dict[str, Pair],
    results: Sequence[Converted | str],
    notes: Sequence[str],
    *,
    settings: Settings,
    datasets: Path,
    source: Path,
) -> Manifest:
    by_patient = dict(zip(pairs, results, strict=True))
    usable = {patient: result for patient, result in by_patient.items() if isinstance(result, Converted)}
    reasons = [_set_aside(patient, result) for patient, result in by_patient.items() if isinstance(result, str)]
    notes = [*notes, *reasons]
    _refuse_too_few(source, len(usable), notes)
    known = load_roles(datasets)
    roles = assign_roles(usable, known)
    store_roles(datasets, known | roles)
    patients = [
        Patient(hash=patient, role=roles[patient], folder=patient, slices=len(one.slice_numbers), **vars(one))
        for patient, one in usable.items()
    ]
    return sealed(
        Manifest(
            schema_version=SCHEMA_VERSION,
            medgan=medgan.__version__,
            task=settings.task,
            spacing_mm=settings.spacing_mm,
            size=settings.size,
            phantom=_phantom([pairs[patient] for patient in usable]),
            patients=patients,
            notes=notes,
        )
    )


def _phantom(pairs: Sequence[Pair]) -> bool:
    kinds = {series.phantom for pair_ in pairs for series in (pair_.source, pair_.target)}
    if len(kinds) > 1:
        raise InputError("expected either patients or phantoms, got both in one folder: they are never mixed")
    return kinds.pop()


def _set_aside(patient: str, reason: str) -> str:
    return f"patient {patient} set aside: {reason}"


def _refuse_too_few(source: Path, num_patients: int, notes: Sequence[str]) -> None:
    if num_patients < 3:
        reasons = "".join(f"\n  {note}" for note in notes)
        raise InputError(
            f"{source}: expected at least 3 patients to split, got {num_patients} that can be used{reasons}"
        )


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder of another name that becomes `folder` when the block ends well, and vanishes when it fails."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what a crashed run left
    part.mkdir()
    try:
        yield part
        os.replace(part, folder)
        flush_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
