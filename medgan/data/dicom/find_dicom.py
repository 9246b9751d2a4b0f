"""Finds the series in DICOM files: groups slices, splits what one series holds, and says which cannot be used."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from medgan.data import unpack
from medgan.data.dicom.header import DAMAGED, Slice, read_slices
from medgan.data.dicom.stacks import COPIES, Stack, places_of, planes_of, split
from medgan.data.series import Problem, Series
from medgan.errors import InputError
from medgan.processes.crew import HERE, Callers

CHUNK = 100  # files whose headers are read in one go
UNREADABLE = "unreadable (permission)"
DAMAGED_PACK = "damaged packed file"


def find_dicom(
    paths: Sequence[Path], passed_over: Counter[str], callers: Callers = HERE
) -> tuple[list[Series], list[Problem]]:
    """Returns the series in these files, and the series that cannot be used.

    Args:
        passed_over: counts files that are no slices, by reason.
        callers: who reads the headers.
    """
    series: list[Series] = []
    problems: list[Problem] = []
    for group in _grouped(_read_all(paths, callers), passed_over).values():
        once = _once(group, passed_over)
        faults = Counter(fault for one in once for fault in one.faults)
        if faults:
            first = once[0]
            problems.append(Problem(first.patient_id, _described(faults, once), first.issuer, first.modality))
        else:
            series += [_series(stack, number) for number, stack in enumerate(split(once, passed_over))]
    return series, problems


def _grouped(found: Iterator[list[Slice] | str], passed_over: Counter[str]) -> dict[tuple[str, ...], list[Slice]]:
    groups: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    for slices in found:
        if isinstance(slices, str):
            passed_over[slices] += 1
            continue
        for one in slices:
            groups[one.group].append(one)
    return groups


def _read_all(paths: Sequence[Path], callers: Callers) -> Iterator[list[Slice] | str]:
    """Returns for each file, in order, its slices or the reason why it is passed over."""
    chunks = [tuple(paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    found = dict(callers.each(_read_chunk, chunks))
    for chunk in chunks:
        if isinstance(found[chunk], InputError):  # one of these files ended the process that read them
            yield from _read_one_by_one(chunk, callers)
        else:
            yield from found[chunk]


def _read_one_by_one(paths: Sequence[Path], callers: Callers) -> Iterator[list[Slice] | str]:
    found = dict(callers.each(_read_chunk, [(path,) for path in paths]))
    for path in paths:
        result = found[(path,)]
        yield f"{DAMAGED}: {result}".rstrip(".") if isinstance(result, InputError) else result[0]


def _read_chunk(paths: tuple[Path, ...]) -> list[list[Slice] | str]:
    return [_slices(path) for path in paths]


def _slices(path: Path) -> list[Slice] | str:
    try:
        return read_slices(path)
    except PermissionError:
        return UNREADABLE
    except unpack.UNREADABLE:
        return DAMAGED_PACK if unpack.is_packed(unpack.stored_in(path)) else UNREADABLE


def _once(group: Sequence[Slice], passed_over: Counter[str]) -> list[Slice]:
    """Returns the slices without copies, and counts the files of the copies."""
    kept = {(one.sop_uid or one.path, one.frame, one.plane): one for one in reversed(group)}
    copies = {one.path for one in group} - {one.path for one in kept.values()}
    if copies:
        passed_over[COPIES] += len(copies)
    return list(reversed(kept.values()))


def _described(faults: Counter[str], slices: Sequence[Slice]) -> str:
    """Describes the most common faults: "CT: 3 of 40 slices have no Image Position (Patient), 1 of 40 has no Rows"."""
    parts = [
        f"{count} of {len(slices)}{'' if number else ' slices'} {'has' if count == 1 else 'have'} {fault}"
        for number, (fault, count) in enumerate(faults.most_common(3))
    ]
    return f"{slices[0].modality or 'image'}: {', '.join(parts)}"


def _series(stack: Stack, number: int) -> Series:
    """Returns the series of a stack; `number` is its place among the stacks of one Series Instance UID, from 0."""
    slices = _sorted(stack.slices)
    first = slices[0]
    return Series(
        patient_id=first.patient_id,
        study_uid=first.study_uid,
        series_uid=f"{first.series_uid}#{number}" if number else first.series_uid,
        frame_of_reference=first.frame_of_reference,
        modality=first.modality,
        files=tuple(one.path for one in slices),
        frames=tuple(one.frame for one in slices),
        planes=planes_of(slices),
        attenuation_corrected=all(one.attenuation_corrected for one in slices),
        phantom=first.phantom,
        synthetic=any(one.synthetic for one in slices),
        original=all(one.original for one in slices),
        kernel=first.kernel,
        head=first.head,
        thickness_mm=median(one.thickness_mm for one in slices),
        person=(first.issuer, first.birth_date, first.sex),
        notes=(stack.note,) if stack.note else (),
    )


def _sorted(slices: Sequence[Slice]) -> list[Slice]:
    """Returns the slices sorted along their normal."""
    order = np.argsort(places_of(slices), kind="stable")
    return [slices[index] for index in order]
