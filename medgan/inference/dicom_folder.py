"""Translates every DICOM series of the right modality below a folder; continues what an earlier run began."""

import glob
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from medgan.data.dicom.attributes import ModelFacts
from medgan.data.dicom.header import DAMAGE, DAMAGED, EMPTY
from medgan.data.dicom.writer import write_derived
from medgan.data.nifti import is_nifti
from medgan.data.reader import UNREADABLE, read_volume, representative_headers, survey
from medgan.data.series import Series
from medgan.data.volume import Volume
from medgan.errors import InputError, JobError
from medgan.inference.translator import Translator, translate_volume
from medgan.locks import held

FIRST_FILE = "00001.dcm"
LOCK_S = 1.0  # long enough for another process to check the lock, too short for a run
MAY_BE_SLICES = (EMPTY, DAMAGED, UNREADABLE)
PARTIAL = "[0-9a-f]" * 8  # `write_derived` puts this into the name of an incomplete folder


def translate_folder(
    translator: Translator,
    source: Path,
    out: Path,
    *,
    facts: ModelFacts,
    progress: Callable[[str], None],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes a derived series for each series of the source's modality that this model has not translated yet.

    While the network translates one series, the next is read and the last is written.

    Args:
        source: a folder of DICOM files in any layout, of any number of patients.
        out: a new or empty folder, or the output of an earlier run of the same model. A single series is written into
            it directly; several series, or those for a mount point, into `series-001`, `series-002` and so on, in the
            order of `survey`. No name identifies a patient.
        progress: called with one line of text at a time, free of identifiers.
        advance: called with the number of slices done, and of all slices.

    Returns:
        The folders written, one for each series.

    Raises:
        InputError: there is no series of that modality, `out` holds other files or cannot be made, another process
            writes there, or the only series cannot be used.
        JobError: some of several series cannot be used or changed their slices since they were translated, or files
            that may be slices cannot be read; all others are translated and written.
    """
    place = out.resolve()
    _make_parent(place, out)
    with held(_lock_of(place), f"output {out}", limit_s=LOCK_S):
        written = _written(out, facts)
        wanted, num_unreadable = _wanted(translator, source, progress)
        left, outgrown = _missing(wanted, written)
        for line in outgrown:
            progress(f"not translated again: {line}")
        if num_there := len(wanted) - len(left) - len(outgrown):
            progress(f"{num_there} of {len(wanted)} series are there already")
        if left and out in written:
            raise InputError("E-TRANSLATE-01", out=out, num_left=len(left))
        alone = len(wanted) == 1 and not written and not place.is_mount()  # nothing can be renamed onto a mount point
        folders = _new_folders(out, written, len(left), alone=alone)
        run = _Run(translator, facts, progress, advance, list(zip(left, folders, strict=True)))
        run.translate_all()
        if run.failed and len(wanted) == 1:
            raise run.failed[0]
        if num_failed := len(run.failed) + len(outgrown):
            raise JobError("E-TRANSLATE-02", num_failed=num_failed, num_wanted=len(wanted))
        if num_unreadable:
            raise JobError("E-TRANSLATE-03", source=source, num_unreadable=num_unreadable)
        return folders


def _make_parent(place: Path, out: Path) -> None:
    """Makes the parent folder and the lock file in it, beside the result, which appears by renaming."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _lock_of(place).touch()
    except OSError as error:
        raise InputError("E-TRANSLATE-04", out=out, parent=place.parent, strerror=error.strerror) from None


def _new_folders(out: Path, written: Mapping[Path, frozenset[str]], number: int, *, alone: bool) -> list[Path]:
    if alone:
        return [out] * number
    named = (out / f"series-{place:03d}" for place in count(1))
    return list(islice((folder for folder in named if folder not in written), number))


def _lock_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _written(out: Path, facts: ModelFacts) -> dict[Path, frozenset[str]]:
    """Returns folder -> source images of what this model wrote; removes incomplete folders of killed runs."""
    place = out.resolve()
    beside = place.parent.glob(f".{glob.escape(place.name)}.{PARTIAL}.partial")
    for partial in [*beside, *place.glob(f".series-*.{PARTIAL}.partial")]:
        shutil.rmtree(partial)
    if not out.exists():
        return {}
    refused = InputError("E-TRANSLATE-05", out=out, facts=facts)
    if not out.is_dir():
        raise refused
    folders = [out] if (out / FIRST_FILE).exists() else sorted(out.iterdir())
    written = {folder: frozenset(_source_image(path, facts) for path in folder.glob("*.dcm")) for folder in folders}
    if not all(images and "" not in images for images in written.values()):
        raise refused
    return written


def _source_image(path: Path, facts: ModelFacts) -> str:
    """Returns the instance UID of the slice that this model translated into the file; empty for any other file."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        made_by = str(header.ContributingEquipmentSequence[-1].ContributionDescription)
        return str(header.SourceImageSequence[0].ReferencedSOPInstanceUID) if made_by.endswith(str(facts)) else ""
    except DAMAGE:
        return ""


def _missing(wanted: Sequence[Series], written: Mapping[Path, frozenset[str]]) -> tuple[list[Series], list[str]]:
    """Returns the series without a folder, and a line for each whose folder was made from other slices."""
    left, outgrown = [], []
    for series in wanted:
        images = _images(series) if written else frozenset()
        folder = next((folder for folder, made_of in written.items() if made_of & images), None)
        if folder is None:
            left.append(series)
        elif written[folder] != images:
            outgrown.append(
                f"{folder} was made of {len(written[folder])} files of a series that has {len(images)} now; "
                "remove it to have it made anew"
            )
    return left, outgrown


def _images(series: Series) -> frozenset[str]:
    """Returns the instance UIDs of the slices; none if one is not readable, which translating the series reports."""
    if is_nifti(series.files[0]):
        return frozenset()
    try:
        headers = [
            pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            for path in dict.fromkeys(series.files)
        ]
        return frozenset(str(header.SOPInstanceUID) for header in headers)
    except DAMAGE:
        return frozenset()


def _wanted(translator: Translator, source: Path, progress: Callable[[str], None]) -> tuple[list[Series], int]:
    """Returns the series to translate, and the number of files that may be slices but cannot be read."""
    modality, found = translator.task.source.modality, survey(source)
    wanted = [series for series in found.acquired if series.modality == modality]
    others = [series for series in found.acquired if series.modality != modality]
    problems = sorted({problem.reason.rstrip(".") for problem in found.problems})
    if not wanted:
        synthetic = [f"{counted(found.synthetic)}, synthetic"] * bool(found.synthetic)
        reasons = "; ".join([counted(others)] * bool(others) + synthetic + problems[:3])
        raise InputError("E-TRANSLATE-06", source=source, modality=modality, reasons=reasons)
    if others:
        progress(f"skipped {counted(others)}: the task {translator.task.name} translates {modality}")
    if found.synthetic:
        progress(f"skipped {counted(found.synthetic)}: synthetic")
    for problem in problems:
        progress(f"skipped what cannot be used: {problem}")
    return wanted, _report_unreadable(found.passed_over, progress)


def _report_unreadable(passed_over: Mapping[str, int], progress: Callable[[str], None]) -> int:
    unreadable = {reason: passed_over[reason] for reason in MAY_BE_SLICES if reason in passed_over}
    for reason, number in unreadable.items():
        progress(f"skipped {number} file{'s' * (number > 1)}: {reason}")
    return sum(unreadable.values())


def counted(found: Sequence[Series]) -> str:
    """Returns the numbers of slices and series, such as "59 CT slices in 1 series, 20 MR slices in 2 series"."""
    slices: dict[str, list[int]] = defaultdict(list)
    for series in found:
        slices[series.modality].append(len(series.files))
    return ", ".join(f"{sum(counts)} {name} slices in {len(counts)} series" for name, counts in sorted(slices.items()))


@dataclass
class _Run:
    """Passes series through reader, network and writer."""

    translator: Translator
    facts: ModelFacts
    progress: Callable[[str], None]
    advance: Callable[[int, int], None]
    jobs: list[tuple[Series, Path]]
    failed: list[InputError] = field(default_factory=list)
    done: int = 0

    def translate_all(self) -> None:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            before: Future[str] | None = None
            for number, ((series, folder), read) in enumerate(zip(self.jobs, self._read(reader), strict=True), 1):
                writing = self._translated(read, folder, writer)
                self.done += len(series.files)
                self._finish(number - 1, before)
                before = writing
            self._finish(len(self.jobs), before)

    def _read(self, reader: ThreadPoolExecutor) -> Iterator[Future[tuple[Volume, list[Dataset]]]]:
        """Yields the volumes in order; starts to read each one before it yields the one before it."""
        following = [reader.submit(_read, series) for series, _ in self.jobs[:1]]
        for series, _ in self.jobs[1:]:
            following.append(reader.submit(_read, series))
            yield following.pop(0)
        yield from following

    def _translated(
        self, read: Future[tuple[Volume, list[Dataset]]], folder: Path, writer: ThreadPoolExecutor
    ) -> Future[str]:
        """Translates a volume; returns the future of writing the result, or of the error that left nothing to write."""
        total, done = sum(len(series.files) for series, _ in self.jobs), self.done
        try:
            volume, headers = read.result()
            derived = translate_volume(
                self.translator, volume, progress=lambda slices, _: self.advance(done + slices, total)
            )
        except InputError as error:
            nothing: Future[str] = Future()
            nothing.set_exception(error)
            return nothing
        return writer.submit(self._write, derived, headers, folder)

    def _write(self, derived: Volume, headers: Sequence[Dataset], folder: Path) -> str:
        write_derived(derived, headers, folder, task=self.translator.task, model=self.facts)
        return f"{len(derived.array)} slices written to {folder}"

    def _finish(self, number: int, writing: Future[str] | None) -> None:
        """Waits until a series is written, and reports the result."""
        if writing is None:
            return
        try:
            self.progress(f"series {number} of {len(self.jobs)}: {writing.result()}")
        except InputError as error:
            self.failed.append(error)
            self.progress(f"series {number} of {len(self.jobs)}: not translated: {error}")


def _read(series: Series) -> tuple[Volume, list[Dataset]]:
    return read_volume(series), representative_headers(series)
