"""Finds the patients in a folder of images: pairs by patient hash, and reasons why others cannot be used."""

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
    """Holds the images that a folder contains for a task.

    Attributes:
        pairs: patient hash -> source and target.
        set_aside: patient hash -> reason why there is no pair; includes the broken patients.
        broken: hashes of patients whose images cannot be used.
        passed_over: reason -> number of files that were not read as images of patients.
    """

    pairs: dict[str, Pair]
    set_aside: dict[str, str]
    broken: frozenset[str]
    passed_over: dict[str, int]
    phantom: bool


def find(source: Path, task: Task, key: bytes, *, source_match: str, target_match: str, processes: int = 1) -> Found:
    """Reads the headers in a folder and pairs the series of each patient.

    Raises:
        InputError: there is no image, no source or no target, or patients and phantoms are in one folder.
    """
    surveyed = survey(source, processes=processes)
    num_synthetic = len({path for one in surveyed.synthetic for path in one.files})
    match = {"source_match": source_match, "target_match": target_match}
    try:
        pairs, problems = pair(surveyed.acquired, task, root=source, **match)
    except InputError as error:
        besides = f" {num_synthetic} files were passed over: {SYNTHETIC}." if num_synthetic else ""
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
            usable[patient] = _with_note(one, faults.get(patient))
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


def _with_note(one: Pair, fault: str | None) -> Pair:
    """Returns the pair with a note about other series of the patient that are broken."""
    if fault is None:
        return one
    return replace(one, note="; ".join(filter(None, (one.note, f"not used: {fault}"))))


def _phantom(pairs: Mapping[str, Pair]) -> bool:
    kinds = {series.phantom for one in pairs.values() for series in (one.source, one.target) if series}
    if len(kinds) > 1:
        num_phantoms = sum(any(side and side.phantom for side in (one.source, one.target)) for one in pairs.values())
        raise InputError("E-PATIENT-02", num_patients=len(pairs) - num_phantoms, num_phantoms=num_phantoms)
    return kinds == {True}
