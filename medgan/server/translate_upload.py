"""Turns one upload into one derived series: checks, reads, translates, writes and packs it."""

import re
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medgan.data.dicom.tolerance import DAMAGE, tolerant
from medgan.data.dicom.writer import write_derived
from medgan.data.reader import read_volume, representative_headers, survey
from medgan.data.series import Series
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.inference.dicom_folder import counted
from medgan.inference.translator import translate_volume
from medgan.server.alias_watcher import Served
from medgan.server.upload import Limits, Refusal
from medgan.tasks import Task

ANSWER = "derived.zip"
DERIVED = "derived"
ON_GRID = 2  # volumes held on the network's grid at once: input and output
HARMLESS = ("not DICOM", "same slice twice")


def answer(
    served: Served, upload: Path, folder: Path, *, limits: Limits, network: Executor, go_on: Callable[[], None]
) -> Path:
    """Translates the one series in an upload; returns the path of a zip file with the derived series.

    Args:
        folder: folder of the result; the caller removes it.
        network: the thread that runs networks, one volume after the other, in the order of arrival.
        go_on: called often; raises an exception to end the work early.

    Raises:
        Refusal: the upload is not exactly one series of the source's modality, or is too large or not usable.
    """
    task = served.translator.task
    _check_files(upload, go_on)
    series = _one_series(upload, task)
    _refuse_large(series, limits, size=served.translator.size)
    names: list[str] = [series.patient_id, series.study_uid, series.series_uid, series.frame_of_reference]
    try:
        headers = representative_headers(series)
        names.append(str(headers[0].get("PatientName", "")))
        files = _derived(served, series, headers, folder / DERIVED, network=network, go_on=go_on)
    except InputError as error:
        raise Refusal("E-UPLOAD-01", reason=_without(str(error), names), cause=error.code, status=422) from None
    return _packed(files, folder / ANSWER, go_on)


def _derived(
    served: Served,
    series: Series,
    headers: Sequence[Dataset],
    folder: Path,
    *,
    network: Executor,
    go_on: Callable[[], None],
) -> list[Path]:
    volume = read_volume(series)

    def translated() -> Volume:
        go_on()
        return translate_volume(served.translator, volume, progress=lambda done, total: go_on())

    derived = network.submit(translated).result()
    return write_derived(derived, headers, folder, task=served.translator.task, model=served.facts)


def _check_files(upload: Path, go_on: Callable[[], None]) -> None:
    """Removes a DICOMDIR, which holds no image; refuses deflated files, whose size is unknown before reading."""
    for path in upload.iterdir():
        go_on()
        try:
            with tolerant():
                meta = read_file_meta_info(path)
                kind, syntax = meta.get("MediaStorageSOPClassUID"), meta.get("TransferSyntaxUID")
        except DAMAGE:
            continue
        if kind == MediaStorageDirectoryStorage:
            path.unlink()
        elif syntax == DeflatedExplicitVRLittleEndian:
            raise Refusal("E-UPLOAD-02", syntax=DeflatedExplicitVRLittleEndian.name, status=415)


def _one_series(upload: Path, task: Task) -> Series:
    modality = task.source.modality
    try:
        found = survey(upload, packed="leave")
    except InputError:
        raise Refusal("E-UPLOAD-03", modality=modality, status=422) from None
    problems = "; ".join(sorted({problem.reason.rstrip(".") for problem in found.problems})[:3])
    if problems:
        raise Refusal("E-UPLOAD-04", modality=modality, problems=problems, status=422)
    if found.synthetic:
        raise Refusal("E-UPLOAD-05", modality=modality, synthetic=counted(found.synthetic), status=422)
    if [series.modality for series in found.series] != [modality]:
        patients = len({series.patient_id for series in found.series})
        raise Refusal(
            "E-UPLOAD-06",
            modality=modality,
            found=counted(found.series),
            patients=f" of {patients} patients" * (patients > 1),
            status=422,
        )
    odd = [f"{number} with: {reason}" for reason, number in sorted(found.passed_over.items()) if reason not in HARMLESS]
    if odd:  # a truncated slice looks like another kind of object, and no slice may be missing silently
        raise Refusal("E-UPLOAD-07", modality=modality, told=", ".join(odd), status=422)
    return found.series[0]


def _refuse_large(series: Series, limits: Limits, *, size: int) -> None:
    """Refuses a large series by its headers, before decoding; decoders keep to the size in the header."""
    own = sum(4 * rows * columns for rows, columns in (plane.size for plane in series.planes))
    on_grid = 4 * size**2 * len(series.planes)
    if own + ON_GRID * on_grid > limits.inflated_bytes:
        raise Refusal(
            "E-UPLOAD-08",
            inflated_bytes=limits.inflated_bytes >> 20,
            own=own >> 20,
            on_grid=ON_GRID * on_grid >> 20,
            status=413,
        )


def _without(message: str, names: Sequence[str]) -> str:
    """Removes names, their components and words from a message, also in their escaped forms."""
    parts = {part for name in names for part in [name, *re.split(r"[\\^=\s]+", name)] if part}
    forms = {form for part in parts for form in (part, repr(part)[1:-1], ascii(part)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "(withheld)", message, flags=re.IGNORECASE)
    return message


def _packed(files: Sequence[Path], path: Path, go_on: Callable[[], None]) -> Path:
    """Packs files into a zip file without compression, which would take too much time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            go_on()
            archive.write(file, file.name)
    return path
