"""Translates every series of the right modality below a folder, DICOM or NIfTI; continues what an earlier run began."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medgan.data.dicom.attributes import ModelFacts
from medgan.data.dicom.find_dicom import UNREADABLE
from medgan.data.dicom.header import DAMAGED, EMPTY
from medgan.data.nifti import along, is_nifti
from medgan.data.reader import survey
from medgan.data.series import Series, Survey
from medgan.errors import InputError, JobError
from medgan.inference.output_folders import lock_of, make_parent, missing, new_folders, written
from medgan.inference.series_steps import SourceSeries, read_series, write_series
from medgan.inference.translator import Placed, Translator, translate_placed
from medgan.locks import held
from medgan.processes.crew import HERE, Callers
from medgan.tasks import Task

LOCK_S = 1.0  # long enough for another process to check the lock, too short for a run
MAY_BE_SLICES = (EMPTY, DAMAGED, UNREADABLE)
LEAST_CROPPED = 0.001  # share of the body outside of the network's grid: less is not told


def translate_folder(
    translator: Translator,
    source: Path,
    out: Path,
    *,
    facts: ModelFacts,
    progress: Callable[[str], None],
    advance: Callable[[int, int], None] = lambda done, total: None,
    frames: Literal["same", "any"] = "same",
    callers: Callers = HERE,
) -> list[Path]:
    """Writes a derived series for each series of the source's modality that this model has not translated yet.

    While the network translates one series, the next is read and the last is written.

    Args:
        source: a folder of DICOM or NIfTI files in any layout, of any number of patients.
        out: a new or empty folder, or the output of an earlier run of the same model. A single series is written into
            it directly; several series, or those for a mount point, into `series-001`, `series-002` and so on, in the
            order of `survey`. No name identifies a patient.
        progress: called with one line of text at a time, free of identifiers.
        advance: called with the number of slices done, and of all slices.
        frames: "any": a source without a frame of reference is translated, and the result gets a new one.
        callers: who reads and writes series; children, where the files are not trusted.

    Returns:
        The folders written, one for each series: `00001.dcm` and so on, or a NIfTI image with its sidecar.

    Raises:
        InputError: there is no series of that modality, `out` holds other files or cannot be made, another process
            writes there, or the only series cannot be used.
        JobError: some series cannot be used or changed their slices since they were translated, or files
            that may be slices cannot be read; all others are translated and written.
    """
    place = out.resolve()
    make_parent(place, out)
    with held(lock_of(place), f"output {out}", limit_s=LOCK_S):
        there = written(out, facts)
        found = survey(source, callers=callers)
        wanted = _wanted(translator, source, found)
        num_unusable = _tell_rest(translator.task, found, progress)
        num_unreadable = _tell_unreadable(found.passed_over, progress)
        left, outgrown = missing(wanted, there, callers)
        for line in outgrown:
            progress(f"not translated again: {line}")
        if num_there := len(wanted) - len(left) - len(outgrown):
            progress(f"{num_there} of {len(wanted)} series are there already")
        if left and out in there:
            raise InputError("E-TRANSLATE-01", out=out, num_left=len(left))
        alone = len(wanted) == 1 and not there and not place.is_mount()  # nothing can be renamed onto a mount point
        folders = new_folders(out, there, len(left), alone=alone)
        run = _Run(translator, facts, progress, advance, frames, callers, list(zip(left, folders, strict=True)))
        run.translate_all()
        num_failed = len(run.failed) + len(outgrown) + num_unusable
        if run.failed and len(wanted) + num_unusable == 1:
            raise run.failed[0]
        if num_failed:
            raise JobError("E-TRANSLATE-02", num_failed=num_failed, num_wanted=len(wanted) + num_unusable)
        if num_unreadable:
            raise JobError("E-TRANSLATE-03", source=source, num_unreadable=num_unreadable)
        return folders


def _wanted(translator: Translator, source: Path, found: Survey) -> list[Series]:
    """Returns the series to translate."""
    modality = translator.task.source.modality
    wanted = [_in_plane(series, translator.axis) for series in found.acquired if series.modality == modality]
    if not wanted:
        others = [counted(found.acquired)] * bool(found.acquired)
        synthetic = [f"{counted(found.synthetic)}, synthetic"] * bool(found.synthetic)
        reasons = "; ".join(others + synthetic + _reasons(found)[:3])
        raise InputError("E-TRANSLATE-06", source=source, modality=modality, reasons=reasons)
    return wanted


def _tell_rest(task: Task, found: Survey, progress: Callable[[str], None]) -> int:
    """Tells what is not translated; returns how many series of the task's source cannot be used."""
    modality = task.source.modality
    if others := [series for series in found.acquired if series.modality != modality]:
        progress(f"skipped {counted(others)}: the task {task.name} translates {modality}")
    if found.synthetic:
        progress(f"skipped {counted(found.synthetic)}: synthetic")
    for reason in _reasons(found):
        progress(f"skipped what cannot be used: {reason}")
    return sum(problem.modality in (modality, "") for problem in found.problems)


def _reasons(found: Survey) -> list[str]:
    return sorted({problem.reason.rstrip(".") for problem in found.problems})


def _in_plane(series: Series, axis: str) -> Series:
    """Returns a NIfTI image turned into the plane of the network's training; a DICOM series as it is."""
    return along(series, "axial" if axis == "any" else axis) if is_nifti(series.files[0]) else series


def _tell_unreadable(passed_over: Mapping[str, int], progress: Callable[[str], None]) -> int:
    unreadable = {reason: number for reason, number in passed_over.items() if reason.startswith(MAY_BE_SLICES)}
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
    frames: Literal["same", "any"]
    callers: Callers
    jobs: list[tuple[Series, Path]]
    failed: list[InputError] = field(default_factory=list)
    done: int = 0

    def translate_all(self) -> None:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            try:
                self._translate(reader, writer)
            except BaseException:
                self.callers.stop()  # or the executors would wait for the series in work
                raise

    def _translate(self, reader: ThreadPoolExecutor, writer: ThreadPoolExecutor) -> None:
        before: Future[Sequence[Path]] | None = None
        for number, ((series, folder), read) in enumerate(zip(self.jobs, self._read(reader), strict=True), 1):
            writing = self._translated(number, read, folder, writer)
            self.done += len(series.files)
            self._finish(number - 1, before)
            before = writing
        self._finish(len(self.jobs), before)

    def _read(self, reader: ThreadPoolExecutor) -> Iterator[Future[SourceSeries]]:
        """Yields the volumes in order; starts to read each one before it yields the one before it."""
        wanted = self.translator.input
        following: list[Future[SourceSeries]] = []
        for series, _ in self.jobs:
            following.append(reader.submit(self.callers.run, read_series, series, wanted, self.frames))
            if len(following) > 1:
                yield following.pop(0)
        yield from following

    def _translated(
        self, number: int, read: Future[SourceSeries], folder: Path, writer: ThreadPoolExecutor
    ) -> Future[Sequence[Path]]:
        """Translates a volume; returns the future of writing the result, or of the error that left nothing to write."""
        total, done = sum(len(series.files) for series, _ in self.jobs), self.done
        try:
            source = read.result()
            for note in (*source.placed.notes, self._other_plane(number), self._cropped(source.placed)):
                if note:
                    self.progress(f"series {number} of {len(self.jobs)}: {note}")
            derived = translate_placed(
                self.translator, source.placed, progress=lambda slices, _: self.advance(done + slices, total)
            )
        except InputError as error:
            nothing: Future[Sequence[Path]] = Future()
            nothing.set_exception(error)
            return nothing
        task, facts = self.translator.task, self.facts
        return writer.submit(self.callers.run, write_series, derived, source.series, source.digest, folder, task, facts)

    def _other_plane(self, number: int) -> str:
        own, trained = self.jobs[number - 1][0].axis, self.translator.axis
        return f"{own} slices, although the network was trained on {trained} ones" * (trained not in ("any", own))

    def _cropped(self, placed: Placed) -> str:
        side_mm = self.translator.size * self.translator.spacing_mm
        if placed.outside <= LEAST_CROPPED:
            return ""
        return f"cropped: {placed.outside:.1%} of the body lie outside the network's {side_mm:.0f} mm"

    def _finish(self, number: int, writing: Future[Sequence[Path]] | None) -> None:
        """Waits until a series is written, and reports the result."""
        if writing is None:
            return
        series, folder = self.jobs[number - 1]
        try:
            files = writing.result()
            place = files[0] if is_nifti(series.files[0]) else folder
            self.progress(f"series {number} of {len(self.jobs)}: {len(series.files)} slices written to {place}")
        except InputError as error:
            self.failed.append(error)
            self.progress(f"series {number} of {len(self.jobs)}: not translated: {error}")
