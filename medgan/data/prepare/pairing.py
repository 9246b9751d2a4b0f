"""Chooses, for every patient, the source and the target series that show the same body in the same place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medgan.data.nifti import SHARED as NIFTI
from medgan.data.series import Problem, Series
from medgan.errors import InputError
from medgan.tasks import Task


@dataclass(frozen=True)
class Pair:
    """Holds a patient's source and target; `note` says how they were chosen where there was a choice.

    Attributes:
        source: source series; None where the source is simulated from the target.
    """

    source: Series | None
    target: Series
    note: str = ""


def pair(
    series: Sequence[Series], task: Task, *, root: Path, source_match: str = "", target_match: str = ""
) -> tuple[list[Pair], list[Problem]]:
    """Returns one pair a patient: same study, same frame of reference, overlapping along the target's normal.

    Of several pairs, PET corrected for attenuation goes first, then the largest overlap, then the most slices. Where
    the task simulates its sources and `source_match` is empty, a patient's longest target series stands alone.

    Args:
        source_match, target_match: text in the path below `root` of these files; empty: the modality decides.

    Returns:
        The pairs, and the patients without one; both in the order of patient IDs.

    Raises:
        InputError: no series can be a source, or none can be a target.
    """
    if source_match and target_match:  # the paths then decide which NIfTI images are pairs, not the sessions
        series = [replace(one, study_uid=NIFTI) if one.frame_of_reference == NIFTI else one for one in series]
    sides, expected = _sides(series, task, root, source_match=source_match, target_match=target_match)
    patients = sorted({one.patient_id for one in series})
    results = [_of_patient(patient, series, sides, task, expected) for patient in patients]
    return [one for one in results if isinstance(one, Pair)], [one for one in results if isinstance(one, Problem)]


def overlap_mm(source: Series, target: Series) -> float:
    """Returns the length along the target's normal that both series cover; negative where a gap lies between them."""
    normal = target.planes[0].normal
    (source_low, source_high), (target_low, target_high) = source.extent_mm(normal), target.extent_mm(normal)
    return min(source_high, target_high) - max(source_low, target_low)


def _fits(series: Series, root: Path, modality: str, match: str) -> bool:
    return series.modality == modality and match in str(series.files[0].relative_to(root))


def _sides(
    series: Sequence[Series], task: Task, root: Path, *, source_match: str, target_match: str
) -> tuple[dict[str, list[Series]], str]:
    """Returns the series of each side, without the source where it is simulated, and what every patient should have."""
    criteria = {"source": (task.source.modality, source_match), "target": (task.target.modality, target_match)}
    if task.simulation != "none" and not source_match:
        del criteria["source"]
    sides = {side: [one for one in series if _fits(one, root, *criterion)] for side, criterion in criteria.items()}
    names = {side: f"{kind} ({match!r} in its path)" if match else kind for side, (kind, match) in criteria.items()}
    expected = " and ".join(names.values())
    if not all(sides.values()):
        found = " and ".join(f"{len(sides[side])} {names[side]}" for side in reversed(names))
        raise InputError("E-PAIR-01", expected=expected, found=found)
    return sides, expected


def _of_patient(
    patient_id: str, series: Sequence[Series], sides: Mapping[str, Sequence[Series]], task: Task, expected: str
) -> Pair | Problem:
    if not patient_id:
        return Problem(patient_id, "expected a Patient ID; it is empty, so nobody can tell patients apart")
    candidates = {side: _candidates(patient_id, ones) for side, ones in sides.items()}
    if not all(candidates.values()):
        modalities = sorted({one.modality for one in series if one.patient_id == patient_id})
        return Problem(patient_id, f"expected {expected}; got only {', '.join(modalities)}")
    if "source" in candidates:
        return _best_pair(patient_id, candidates["source"], candidates["target"], task)
    return _target_alone(candidates["target"], task)


def _candidates(patient_id: str, series: Sequence[Series]) -> list[Series]:
    """Returns a patient's regular stacks; only where there is none, series of several phases or echoes."""
    mine = [one for one in series if one.patient_id == patient_id]
    return [one for one in mine if one.regular] or mine


def _target_alone(targets: list[Series], task: Task) -> Pair:
    best = max(targets, key=lambda one: (one.attenuation_corrected, len(one.files), one.series_uid))
    several = f"took the longest of {len(targets)} {task.target.modality} series; target_match=TEXT takes others"
    return Pair(None, best, several if len(targets) > 1 else "")


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
    one_study = source != target and source.study_uid == target.study_uid
    return one_study and source.frame_of_reference == target.frame_of_reference != ""


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
