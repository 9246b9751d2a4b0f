"""Choose, for every patient, the source and the target series that show the same body in the same place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medgan.data.series import Series
from medgan.errors import InputError
from medgan.tasks import Task


@dataclass(frozen=True)
class Pair:
    """A patient's source and target; `note` says how they were chosen where there was a choice."""

    source: Series
    target: Series
    note: str = ""


@dataclass(frozen=True)
class Problem:
    """A patient who cannot be used, and why (without naming him)."""

    patient_id: str
    reason: str


def pair(series: Sequence[Series], task: Task) -> tuple[list[Pair], list[Problem]]:
    """One pair a patient: same study, same frame of reference, overlapping along the target's normal.

    Of several, PET corrected for attenuation goes first, then the largest overlap, then the most slices.

    Returns:
        The pairs, and the patients without one; both in the order of patient ids.

    Raises:
        InputError: one of the two modalities is missing altogether.
    """
    wanted = {task.source.modality, task.target.modality}
    counts = {modality: sum(one.modality == modality for one in series) for modality in wanted}
    if not all(counts.values()):
        source, target = task.source.modality, task.target.modality
        raise InputError(
            f"expected {source} and {target} series of the same patients; "
            f"found {counts[target]} {target} and {counts[source]} {source}"
        )
    patients = defaultdict(list)
    for one in series:
        if one.modality in wanted:
            patients[one.patient_id].append(one)
    results = [_pair_of_patient(patient, patients[patient], task) for patient in sorted(patients)]
    return [one for one in results if isinstance(one, Pair)], [one for one in results if isinstance(one, Problem)]


def overlap_mm(source: Series, target: Series) -> float:
    """Length along the target's normal that both series cover; negative where a gap lies between them."""
    normal = target.planes[0].normal
    (source_low, source_high), (target_low, target_high) = source.extent_mm(normal), target.extent_mm(normal)
    return min(source_high, target_high) - max(source_low, target_low)


def _pair_of_patient(patient_id: str, series: Sequence[Series], task: Task) -> Pair | Problem:
    source_name, target_name = task.source.modality, task.target.modality
    sources = [one for one in series if one.modality == source_name]
    targets = [one for one in series if one.modality == target_name]
    if not patient_id:
        return Problem(patient_id, "expected a Patient ID; it is empty, so nobody can tell patients apart")
    if not sources or not targets:
        return Problem(patient_id, f"expected {source_name} and {target_name}; got only {series[0].modality}")
    together = [
        Pair(source, target)
        for source in sources
        for target in targets
        if source.study_uid == target.study_uid and source.frame_of_reference == target.frame_of_reference != ""
    ]
    if not together:
        return Problem(patient_id, f"no {source_name} and {target_name} share a study and a frame of reference")
    overlapping = [one for one in together if overlap_mm(one.source, one.target) > 0]
    if not overlapping:
        return Problem(patient_id, f"{source_name} and {target_name} do not overlap along the slice normal")
    best = max(overlapping, key=_preference)
    return Pair(best.source, best.target, _note(best, overlapping, task))


def _preference(one: Pair) -> tuple[bool, float, int, str, str]:
    overlap = round(overlap_mm(one.source, one.target), 1)
    num_slices = len(one.source.files) + len(one.target.files)
    return one.source.attenuation_corrected, overlap, num_slices, one.source.series_uid, one.target.series_uid


def _note(best: Pair, candidates: Sequence[Pair], task: Task) -> str:
    if len(candidates) == 1:
        return ""
    studies = len({one.source.study_uid for one in candidates})
    return (
        f"took 1 of {len(candidates)} possible pairs in {studies} {'study' if studies == 1 else 'studies'}: "
        f"{len(best.source.files)} {task.source.modality} and {len(best.target.files)} {task.target.modality} slices "
        f"that overlap by {overlap_mm(best.source, best.target):.0f} mm"
    )
