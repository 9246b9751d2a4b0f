"""Translates every fitting DICOM series below a folder, and goes on where an earlier run stopped."""

from __future__ import annotations

import glob
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
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
TAKEN_S = 1.0  # long enough for a look at the lock, too short for a run
MAY_BE_SLICES = (EMPTY, DAMAGED, UNREADABLE)
PARTIAL = "[0-9a-f]" * 8  # what `write_derived` puts into the name of a folder that is not whole yet


def translate_folder(
    translator: Translator,
    source: Path,
    out: Path,
    *,
    facts: ModelFacts,
    progress: Callable[[str], None],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes a derived series for each series of the task's source modality that the same model has not written yet.

    While the network works on one series, the next is read and the last is written.

    Args:
        translator: what to use.
        source: a folder of DICOM files in any layout, of any number of patients.
        out: a new or empty folder, or what an earlier run of the same model left. One series goes straight into it;
            several, or what goes to a mount point, go into `series-001`, `series-002` and so on, in the order of
            `survey`. No name tells who the patient is.
        facts: the model, as the derived series names it.
        progress: called with one line of text at a time, free of identifiers.
        advance: called with the slices done, and those of all series.

    Returns:
        The folders written, one a series.

    Raises:
        InputError: no series of that modality, `out` is taken or cannot be made, another process writes there, or the
            only series cannot be used.
        JobError: some of several series cannot be used, have other slices now than when they were translated, or
            files cannot be read that may be slices; what could be translated is written.
    """
    place = out.resolve()
    _make_room(place, out)
    with held(_lock_of(place), f"output {out}", limit_s=TAKEN_S):
        written = _written(out, facts)
        wanted, num_unreadable = _wanted(translator, source, progress)
        left, outgrown = _missing(wanted, written)
        for line in outgrown:
            progress(f"not translated again: {line}")
        if num_there := len(wanted) - len(left) - len(outgrown):
            progress(f"{num_there} of {len(wanted)} series are there already")
        if left and out in written:
            raise InputError("E-TRANSLATE-01", out=out, num_left=len(left))
        named = (out / f"series-{number:03d}" for number in count(1))
        free = (folder for folder in named if folder not in written)
        several = len(wanted) > 1 or written or place.is_mount()  # nothing can be renamed onto a mount point
        folders = [next(free) for _ in left] if several else [out] * len(left)
        run = _Run(translator, facts, progress, advance, list(zip(left, folders, strict=True)))
        run.translate_all()
        if run.failed and len(wanted) == 1:
            raise run.failed[0]
        if num_failed := len(run.failed) + len(outgrown):
            raise JobError("E-TRANSLATE-02", num_failed=num_failed, num_wanted=len(wanted))
        if num_unreadable:
            raise JobError("E-TRANSLATE-03", source=source, num_unreadable=num_unreadable)
        return folders


def _make_room(place: Path, out: Path) -> None:
    """The lock lies beside the result, which appears by renaming."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _lock_of(place).touch()
    except OSError as error:
        raise InputError("E-TRANSLATE-04", out=out, parent=place.parent, strerror=error.strerror) from None


def _lock_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _written(out: Path, facts: ModelFacts) -> dict[Path, frozenset[str]]:
    """Folder -> source images of what the same model wrote; what a killed run left half is removed.

    Raises:
        InputError: there is something else.
    """
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
    """The instance UID of the slice from which this model made a derived one; empty if it did not."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        made_by = str(header.ContributingEquipmentSequence[-1].ContributionDescription)
        return str(header.SourceImageSequence[0].ReferencedSOPInstanceUID) if made_by.endswith(str(facts)) else ""
    except DAMAGE:
        return ""


def _missing(wanted: Sequence[Series], written: Mapping[Path, frozenset[str]]) -> tuple[list[Series], list[str]]:
    """The series of which no folder was made; and a line for each of which one was made when it had other slices."""
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
    """The instance UIDs of the slices; none where one cannot be read, which translating the series then tells."""
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
    """The series to translate, and how many files cannot be read that may belong to them."""
    modality, found = translator.task.source.modality, survey(source)
    wanted = [series for series in found.acquired if series.modality == modality]
    others = [series for series in found.acquired if series.modality != modality]
    problems = sorted({problem.reason for problem in found.problems})
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
    unreadable = {reason: found.passed_over[reason] for reason in MAY_BE_SLICES if reason in found.passed_over}
    for reason, number in unreadable.items():
        progress(f"skipped {number} file{'s' * (number > 1)}: {reason}")
    return wanted, sum(unreadable.values())


def counted(found: Sequence[Series]) -> str:
    """Such as "59 CT slices in 1 series, 20 MR slices in 2 series"."""
    slices: dict[str, list[int]] = defaultdict(list)
    for series in found:
        slices[series.modality].append(len(series.files))
    return ", ".join(f"{sum(counts)} {name} slices in {len(counts)} series" for name, counts in sorted(slices.items()))


@dataclass
class _Run:
    """Series on their way through reader, network and writer.

    Attributes:
        jobs: series, and the folder for what is made of each.
        failed: what was wrong with those that cannot be used.
        done: slices.
    """

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
                self._reconcile(number - 1, before)
                before = writing
            self._reconcile(len(self.jobs), before)

    def _read(self, reader: ThreadPoolExecutor) -> Iterator[Future[tuple[Volume, list[Dataset]]]]:
        """The volumes, each begun before the one before it is asked for no more."""
        following = [reader.submit(_read, series) for series, _ in self.jobs[:1]]
        for series, _ in self.jobs[1:]:
            following.append(reader.submit(_read, series))
            yield following.pop(0)
        yield from following

    def _translated(
        self, read: Future[tuple[Volume, list[Dataset]]], folder: Path, writer: ThreadPoolExecutor
    ) -> Future[str]:
        """The writing of what the network makes of a volume, or why there is nothing to write."""
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

    def _reconcile(self, number: int, writing: Future[str] | None) -> None:
        """Waits for a series to be written, and tells of it."""
        if writing is None:
            return
        try:
            self.progress(f"series {number} of {len(self.jobs)}: {writing.result()}")
        except InputError as error:
            self.failed.append(error)
            self.progress(f"series {number} of {len(self.jobs)}: not translated: {error}")


def _read(series: Series) -> tuple[Volume, list[Dataset]]:
    return read_volume(series), representative_headers(series)
