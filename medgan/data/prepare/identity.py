"""Tells patients apart where a Patient ID alone does not: by its issuer, birth date, sex and studies."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from medgan.data.nifti import is_nifti
from medgan.data.nifti_names import ISSUED
from medgan.data.series import Problem, Series

PLACEHOLDERS = frozenset(
    ["anonymous", "anonymized", "anonymised", "anon", "deidentified", "removed", "unknown", "none", "na", "null",
     "patient", "patientid", "test", "noname", "noid", "xxx", "xxxx", "id", "0"]
)  # fmt: skip
"""Patient IDs, without case, zeros in front and signs, that de-identifiers write for everybody."""
EMPTY = "expected a Patient ID; it is empty, so nobody can tell patients apart"
PLACEHOLDER = (
    "expected a Patient ID of each patient's own; got a placeholder in {num} studies, so nobody can tell patients apart"
)
TWO_PERSONS = "expected one patient; one Patient ID has {num} different values of {name}, so it names several persons"
NO_ISSUER = "expected an Issuer of Patient ID; several issuers use this Patient ID, and this series names none"
TWO_IDS = "expected one Patient ID; the study and frame of reference of these images are there under {num} Patient IDs"


def without_issuer(patient_id: str) -> str:
    """Returns the Patient ID alone."""
    return patient_id.partition(ISSUED)[0]


def resolve_patients(series: Sequence[Series]) -> tuple[list[Series], list[Problem]]:
    """Returns the series, each with an ID that one person has; and the series whose patient is unclear.

    An issuer becomes part of the ID (PS3.3 C.7.1.1). Series without an issuer belong to the only one that there is.
    """
    clear = [one for one in series if is_nifti(one.files[0])]
    problems: list[Problem] = []
    for own in _grouped_by_id([one for one in series if not is_nifti(one.files[0])]):
        persons, unclear = _by_issuer(own)
        problems += _problems(unclear, NO_ISSUER)
        reasons = [_reason_against(person) for person in persons]
        for person, reason in zip(persons, reasons, strict=True):
            problems += _problems(person, reason) if reason else []
            clear += [] if reason else person
    return _without_two_ids(clear, problems)


def with_issuers(problems: Sequence[Problem], series: Sequence[Series]) -> list[Problem]:
    """Returns the problems, each under the ID that `resolve_patients` gave the patient's series."""
    known: dict[str, set[str]] = defaultdict(set)
    for one in series:
        known[without_issuer(one.patient_id)].add(one.patient_id)
    resolved = []
    for problem in problems:
        plain = problem.patient_id
        only = known[plain] if len(known[plain]) == 1 else {plain}
        name = f"{plain}{ISSUED}{problem.issuer}" if problem.issuer else next(iter(only))
        resolved.append(Problem(name, problem.reason))
    return resolved


def _without_two_ids(series: list[Series], problems: list[Problem]) -> tuple[list[Series], list[Problem]]:
    """Returns the series and problems; an examination that is there under two IDs is a problem."""
    several = _under_two_ids(series)
    for place, num in several.items():
        problems = problems + _problems([one for one in series if _place(one) == place], TWO_IDS.format(num=num))
    return [one for one in series if _place(one) not in several], problems


def _problems(series: Sequence[Series], reason: str) -> list[Problem]:
    return [Problem(one.patient_id, reason) for one in series]


def _grouped_by_id(series: Sequence[Series]) -> list[list[Series]]:
    groups: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        groups[one.patient_id].append(one)
    return list(groups.values())


def _by_issuer(series: Sequence[Series]) -> tuple[list[list[Series]], list[Series]]:
    """Returns the series of each issuer, with the issuer in their IDs; and those that may be of any of several."""
    issuers = sorted({one.person[0] for one in series} - {""})
    if not issuers:
        return [list(series)], []
    groups: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        issuer = one.person[0] or (issuers[0] if len(issuers) == 1 else "")
        groups[issuer].append(replace(one, patient_id=f"{one.patient_id}{ISSUED}{issuer}") if issuer else one)
    unclear = groups.pop("", [])
    return list(groups.values()), unclear


def _reason_against(series: Sequence[Series]) -> str:
    """Returns why these series of one ID cannot be taken for one person's, or nothing."""
    plain = without_issuer(series[0].patient_id)
    if not plain:
        return EMPTY
    studies = {one.study_uid for one in series}
    letters = "".join(letter for letter in plain.lower() if letter.isalnum()).lstrip("0")
    if len(studies) > 1 and (letters in PLACEHOLDERS or not letters):
        return PLACEHOLDER.format(num=len(studies))
    for place, name in ((1, "Patient's Birth Date"), (2, "Patient's Sex")):
        values = {one.person[place] for one in series} - {"", "O"}
        if len(values) > 1:
            return TWO_PERSONS.format(num=len(values), name=name)
    return ""


def _place(one: Series) -> tuple[str, str]:
    """Returns what only the images of one examination share: study and frame of reference."""
    return one.study_uid, one.frame_of_reference


def _under_two_ids(series: Sequence[Series]) -> dict[tuple[str, str], int]:
    """Returns examinations that are there under several Patient IDs, and under how many."""
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in series:
        if one.frame_of_reference and not is_nifti(one.files[0]):
            ids[_place(one)].add(one.patient_id)
    return {place: len(those) for place, those in ids.items() if len(those) > 1}
