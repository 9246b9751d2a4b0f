"""What a folder of images holds for a task: pairs by patient hash, and who cannot be used, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medgan.data.prepare.pairing import Pair, pair
from medgan.data.prepare.split import patient_hash
from medgan.data.reader import survey
from medgan.data.series import Problem
from medgan.errors import InputError
from medgan.tasks import Task

SYNTHETIC = "synthetic image"


@dataclass(frozen=True)
class Found:
    """What a folder holds for a task.

    Attributes:
        pairs: patient hash -> source and target.
        set_aside: patient hash -> why there is no pair; the broken are among them.
        broken: who has images, but such that cannot be used.
        passed_over: files that are no images: reason -> how many.
        phantom: whether these are phantoms.
    """

    pairs: dict[str, Pair]
    set_aside: dict[str, str]
    broken: frozenset[str]
    passed_over: dict[str, int]
    phantom: bool


def find(source: Path, task: Task, key: bytes, *, source_match: str, target_match: str, processes: int = 1) -> Found:
    """Surveys a folder and pairs what it holds.

    Raises:
        InputError: there is no image, one side is missing altogether, or patients and phantoms lie together.
    """
    surveyed = survey(source, processes=processes)
    num_synthetic = len({path for one in surveyed.synthetic for path in one.files})
    match = {"source_match": source_match, "target_match": target_match}
    try:
        pairs, problems = pair(surveyed.acquired, task, root=source, **match)
    except InputError as error:
        besides = f"; {num_synthetic} files passed over: {SYNTHETIC}" if num_synthetic else ""
        raise error.within("E-PATIENT-01", source=source, besides=besides) from None
    faults = _by_patient(surveyed.problems, key)
    usable: dict[str, Pair] = {}
    for one in pairs:
        patient = patient_hash(one.target.patient_id, key)
        try:
            _ = one.target.affine, one.source and one.source.affine
        except InputError as error:
            faults[patient] = str(error)
        else:
            usable[patient] = _noting(one, faults.get(patient))
    broken = {patient: reason for patient, reason in faults.items() if patient not in usable}
    return Found(
        pairs=dict(sorted(usable.items())),
        set_aside=_by_patient(problems, key) | broken,
        broken=frozenset(broken),
        passed_over=dict(sorted((Counter(surveyed.passed_over) + Counter({SYNTHETIC: num_synthetic})).items())),
        phantom=_phantom(usable),
    )


def _by_patient(problems: list[Problem], key: bytes) -> dict[str, str]:
    reasons: dict[str, list[str]] = {}
    for one in problems:
        reasons.setdefault(patient_hash(one.patient_id, key), []).append(one.reason)
    return {patient: "; ".join(dict.fromkeys(several)) for patient, several in reasons.items()}


def _noting(one: Pair, fault: str | None) -> Pair:
    """A pair of a patient who has broken series beside it says so."""
    if fault is None:
        return one
    return replace(one, note="; ".join(filter(None, (one.note, f"not used: {fault}"))))


def _phantom(pairs: Mapping[str, Pair]) -> bool:
    kinds = {series.phantom for one in pairs.values() for series in (one.source, one.target) if series}
    if len(kinds) > 1:
        raise InputError("E-PATIENT-02")
    return kinds == {True}
