"""Choose, for every patient, the source and the target series that show the same body in the same place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medgan.data.nifti import SHARED as NIFTI
from medgan.data.series import Problem, Series
from medgan.errors import InputError
from medgan.tasks import Task


@dataclass(frozen=True)
class Pair:
    """A patient's source and target; `note` says how they were chosen where there was a choice.

    Attributes:
        source: None where it is to be simulated from the target.
    """

    source: Series | None
    target: Series
    note: str = ""


def pair(
    series: Sequence[Series], task: Task, *, root: Path, source_match: str = "", target_match: str = ""
) -> tuple[list[Pair], list[Problem]]:
    """One pair a patient: same study, same frame of reference, overlapping along the target's normal.

    Of several, PET corrected for attenuation goes first, then the largest overlap, then the most slices. Where the
    task simulates its sources and no text tells given ones, a patient's longest target series stands alone.

    Args:
        series: what was found.
        task: what is translated into what.
        root: the folder it was found in.
        source_match: text in the path below `root` of a source's files; empty: the modality tells it.
        target_match: the same of a target's.

    Returns:
        The pairs, and the patients without one; both in the order of patient ids.

    Raises:
        InputError: one of the two sides is missing altogether.
    """
    if source_match and target_match:  # of NIfTI images, paths then tell what a session tells otherwise
        series = [replace(one, study_uid=NIFTI) if one.frame_of_reference == NIFTI else one for one in series]
    simulated = task.simulation != "none" and not source_match
    wanted = {} if simulated else {"source": (task.source.modality, source_match)}
    wanted["target"] = (task.target.modality, target_match)
    sides = {side: [one for one in series if _fits(one, root, *what)] for side, what in wanted.items()}
    names = {
        side: f"{modality}{f' ({match!r} in its path)' if match else ''}" for side, (modality, match) in wanted.items()
    }
    expected = " and ".join(names.values())
    if not all(sides.values()):
        found = " and ".join(f"{len(sides[side])} {names[side]}" for side in reversed(names))
        raise InputError("E-PAIR-01", expected=expected, found=found)
    modalities: dict[str, set[str]] = defaultdict(set)
    for one in series:
        modalities[one.patient_id].add(one.modality)
    missing = {
        patient: f"expected {expected}; got only {', '.join(sorted(has))}" for patient, has in modalities.items()
    }
    results = [_of_patient(patient, sides, task, missing=missing[patient]) for patient in sorted(modalities)]
    return [one for one in results if isinstance(one, Pair)], [one for one in results if isinstance(one, Problem)]


def overlap_mm(source: Series, target: Series) -> float:
    """Length along the target's normal that both series cover; negative where a gap lies between them."""
    normal = target.planes[0].normal
    (source_low, source_high), (target_low, target_high) = source.extent_mm(normal), target.extent_mm(normal)
    return min(source_high, target_high) - max(source_low, target_low)


def _fits(series: Series, root: Path, modality: str, match: str) -> bool:
    return series.modality == modality and match in str(series.files[0].relative_to(root))


def _of_patient(patient_id: str, sides: Mapping[str, Sequence[Series]], task: Task, *, missing: str) -> Pair | Problem:
    if not patient_id:
        return Problem(patient_id, "expected a Patient ID; it is empty, so nobody can tell patients apart")
    all_of = {side: [one for one in ones if one.patient_id == patient_id] for side, ones in sides.items()}
    # a series of several phases or echoes is no stack; it is only taken, and refused by name, where there is no other
    mine = {side: [one for one in ones if one.regular] or ones for side, ones in all_of.items()}
    if not all(mine.values()):
        return Problem(patient_id, missing)
    if "source" in mine:
        return _best_pair(patient_id, mine["source"], mine["target"], task)
    targets = mine["target"]
    best = max(targets, key=lambda one: (one.attenuation_corrected, len(one.files), one.series_uid))
    several = f"took the longest of {len(targets)} {task.target.modality} series; target_match=TEXT takes others"
    note = several if len(targets) > 1 else ""
    return Pair(None, best, note)


def _best_pair(patient_id: str, sources: list[Series], targets: list[Series], task: Task) -> Pair | Problem:
    source_name, target_name = task.source.modality, task.target.modality
    together = [(source, target) for source in sources for target in targets if _in_one_place(source, target)]
    if not together:
        shared = "a session" if targets[0].frame_of_reference == NIFTI else "a study and a frame of reference"
        return Problem(patient_id, f"no {source_name} and {target_name} share {shared}")
    overlapping = [one for one in together if overlap_mm(*one) > 0]
    if not overlapping:
        return Problem(patient_id, f"{source_name} and {target_name} do not overlap along the slice normal")
    source, target = max(overlapping, key=_preference)
    return Pair(source, target, _note(source, target, overlapping))


def _in_one_place(source: Series, target: Series) -> bool:
    return (
        source != target
        and source.study_uid == target.study_uid
        and source.frame_of_reference == target.frame_of_reference != ""
    )


def _preference(one: tuple[Series, Series]) -> tuple[bool, float, int, str, str]:
    source, target = one
    num_slices = len(source.files) + len(target.files)
    overlap = round(overlap_mm(source, target), 1)
    return source.attenuation_corrected, overlap, num_slices, source.series_uid, target.series_uid


def _note(source: Series, target: Series, candidates: Sequence[tuple[Series, Series]]) -> str:
    if len(candidates) == 1:
        return ""
    studies = len({one.study_uid for one, _ in candidates})
    return (
        f"took 1 of {len(candidates)} possible pairs in {studies} {'study' if studies == 1 else 'studies'}: "
        f"{len(source.files)} {source.modality} and {len(target.files)} {target.modality} slices "
        f"that overlap by {overlap_mm(source, target):.0f} mm"
    )
