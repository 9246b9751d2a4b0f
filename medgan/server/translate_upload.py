"""Reads one upload as one series, and writes its answer; both run in a child process, as an upload may be hostile."""

import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medgan.data.dicom.attributes import ModelFacts
from medgan.data.dicom.structure import is_deflated
from medgan.data.dicom.tolerance import DAMAGE, tolerant
from medgan.data.reader import representative_headers, survey
from medgan.data.series import Series
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.inference.dicom_folder import counted
from medgan.inference.series_steps import SourceSeries, read_series, write_series
from medgan.inference.translator import NetworkInput
from medgan.server.upload import Limits, Refusal
from medgan.tasks import Task

ANSWER = "derived.zip"
DERIVED = "derived"
ON_GRID = 2  # volumes held on the network's grid at once: input and output
HEAD_BYTES = 1 << 20
HARMLESS = ("not DICOM", "same slice twice")


def read_upload(upload: Path, wanted: NetworkInput, limits: Limits) -> SourceSeries:
    """Returns the one series in an upload, on the network's grid.

    Args:
        upload: folder with the files of the body.

    Raises:
        Refusal: the upload is not exactly one series of the source's modality, or is too large or not usable.
    """
    _check_files(upload)
    series = _one_series(upload, wanted.task)
    _refuse_large(series, limits, size=wanted.size)
    with _names_removed(series):
        return read_series(series, wanted, "same")


def write_answer(derived: Volume, series: Series, folder: Path, task: Task, facts: ModelFacts) -> Path:
    """Writes the derived series, and returns the path of a zip file with it.

    Args:
        series: the source.
        folder: folder of the result; the caller removes it.

    Raises:
        Refusal: the headers of the source do not allow it.
    """
    shutil.rmtree(folder / DERIVED, ignore_errors=True)  # of a child that was lost
    with _names_removed(series):
        files = write_series(derived, series, "", folder / DERIVED, task, facts)
    path = folder / ANSWER
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # compression would take too much time
        for file in files:
            archive.write(file, file.name)
    shutil.rmtree(folder / DERIVED)
    return path


@contextmanager
def _names_removed(series: Series) -> Iterator[None]:
    """Turns an error into a refusal whose text has no name of the patient or the images."""
    try:
        yield
    except InputError as error:
        names = [series.patient_id, series.study_uid, series.series_uid, series.frame_of_reference, *_patient(series)]
        raise Refusal("E-UPLOAD-01", reason=_without(str(error), names), cause=error.code, status=422) from None


def _patient(series: Series) -> list[str]:
    try:
        return [str(representative_headers(series)[0].get("PatientName", ""))]
    except (InputError, *DAMAGE):
        return []


def _check_files(upload: Path) -> None:
    """Removes a DICOMDIR, which holds no image; refuses deflated files, whose size is unknown before reading."""
    for path in upload.iterdir():
        with path.open("rb") as file:
            if is_deflated(file.read(HEAD_BYTES)):
                raise Refusal("E-UPLOAD-02", syntax=DeflatedExplicitVRLittleEndian.name, status=415)
        try:
            with tolerant():
                kind = read_file_meta_info(path).get("MediaStorageSOPClassUID")
        except DAMAGE:
            continue
        if kind == MediaStorageDirectoryStorage:
            path.unlink()


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
