"""Translates every fitting DICOM series below a folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from medgan.data.catalogue import Series
from medgan.data.series import find_series, read_volume, representative_headers
from medgan.errors import InputError
from medgan.serving.derive import ModelFacts, refuse_taken, write_derived
from medgan.serving.translate import Translator, translate_volume


def translate_folder(
    translator: Translator, source: Path, out: Path, *, facts: ModelFacts, progress: Callable[[str], None]
) -> list[Path]:
    """Writes a derived series for each series of the task's source modality.

    Args:
        translator: what to use.
        source: a folder of DICOM files in any layout, of any number of patients.
        out: a new or empty folder. One series goes straight into it; several go into `series-001`, `series-002`
            and so on, in the order of `find_series`. No name tells who the patient is.
        facts: the model, as the derived series names it.
        progress: called with one line of text at a time, free of identifiers.

    Returns:
        The folders written, one a series.

    Raises:
        InputError: no series of that modality, `out` is taken, or a series cannot be read.
    """
    refuse_taken(out)
    modality = translator.task.source.modality
    found = find_series(source)
    wanted = [series for series in found if series.modality == modality]
    others = [series for series in found if series.modality != modality]
    if not wanted:
        raise InputError(f"{source}: expected a {modality} series; found {_counted(others)}")
    if others:
        progress(f"skipped {_counted(others)}: the task {translator.task.name} translates {modality}")
    folders = [out / f"series-{number:03d}" for number in range(1, len(wanted) + 1)] if len(wanted) > 1 else [out]
    for number, (series, folder) in enumerate(zip(wanted, folders, strict=True), 1):
        volume = translate_volume(translator, read_volume(series))
        write_derived(volume, representative_headers(series), folder, task=translator.task, model=facts)
        progress(f"series {number} of {len(wanted)}: {len(volume.array)} slices written to {folder}")
    return folders


def _counted(found: Sequence[Series]) -> str:
    """Such as "59 CT slices in 1 series, 20 MR slices in 2 series"."""
    slices: dict[str, list[int]] = defaultdict(list)
    for series in found:
        slices[series.modality].append(len(series.files))
    return ", ".join(f"{sum(counts)} {name} slices in {len(counts)} series" for name, counts in sorted(slices.items()))
