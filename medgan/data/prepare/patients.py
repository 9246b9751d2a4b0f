"""Finds the patients in a folder of images: pairs by patient hash, and reasons why others cannot be used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medgan.data.plausibility import BOUNDS, Bounds, check_field
from medgan.data.prepare.identity import resolve_patients, with_issuers, without_issuer
from medgan.data.prepare.pairing import Choice, Pair, pair
from medgan.data.prepare.split import patient_hash
from medgan.data.reader import counted_reasons
from medgan.data.series import Problem, Survey
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
        without_issuer: patient hash -> hash of the Patient ID alone, of patients whose ID has an issuer.
    """

    pairs: dict[str, Pair]
    set_aside: dict[str, str]
    broken: frozenset[str]
    passed_over: dict[str, int]
    without_issuer: dict[str, str]
    phantom: bool


def find(surveyed: Survey, source: Path, task: Task, key: bytes, choice: Choice, bounds: Bounds = BOUNDS) -> Found:
    """Pairs the series of each patient.

    Args:
        surveyed: what the folder `source` holds.
        bounds: of the size of an image.

    Raises:
        InputError: there is no source or no target, or patients and phantoms are in one folder.
    """
    synthetic = Counter({SYNTHETIC: len({path for one in surveyed.synthetic for path in one.files})})
    passed_over = +(Counter(surveyed.passed_over) + synthetic)
    series, unclear = resolve_patients(surveyed.acquired)
    unusable = [*with_issuers(surveyed.problems, series), *unclear]
    try:
        pairs, problems = pair(series, task, root=source, choice=choice)
    except InputError as error:
        raise error.within("E-PATIENT-01", source=source, besides=_reasons(unusable, passed_over)) from None
    faults = _by_patient(unusable, key)
    usable: dict[str, Pair] = {}
    for one in pairs:
        patient = patient_hash(one.target.patient_id, key)
        if reason := _reason_against(one, bounds):
            faults[patient] = reason
        else:
            usable[patient] = _with_note(one, faults.get(patient))
    broken = {patient: reason for patient, reason in faults.items() if patient not in usable}
    plain = {
        patient: patient_hash(without_issuer(one.target.patient_id), key) for patient, one in sorted(usable.items())
    }
    return Found(
        pairs=dict(sorted(usable.items())),
        set_aside=_by_patient(problems, key) | broken,
        broken=frozenset(broken),
        passed_over=dict(sorted(passed_over.items())),
        without_issuer={patient: other for patient, other in plain.items() if other != patient},
        phantom=_phantom(usable),
    )


def _reason_against(one: Pair, bounds: Bounds) -> str:
    """Returns why a pair cannot be used, by its headers; or nothing."""
    sides = [side for side in (one.target, one.source) if side]
    try:
        for side in sides:
            _ = side.affine
            check_field(side.planes[0], side.modality, bounds)
    except InputError as error:
        return "; ".join((str(error).rstrip("."), *(note for side in sides for note in side.notes)))
    return ""


def _reasons(problems: Sequence[Problem], passed_over: Counter[str]) -> str:
    """Returns, as further sentences, why images cannot be used and files were passed over, the most frequent first."""
    counted = Counter(one.reason.rstrip(".") for one in problems)
    sentences = [f" Not usable: {number} series: {reason}." for reason, number in counted.most_common(5)]
    return "".join(sentences) + (f" Passed over: {counted_reasons(passed_over)}." if passed_over else "")


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
