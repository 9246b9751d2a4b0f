"""Chooses, for every patient, the source and the target series that show the same body in the same place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medgan.data.nifti import along, is_nifti
from medgan.data.nifti_names import SHARED as NIFTI
from medgan.data.prepare.reconstruction import rank
from medgan.data.series import Problem, Series
from medgan.errors import InputError
from medgan.tasks import Task


@dataclass(frozen=True)
class Choice:
    """Holds which series may be a patient's source and target; the plan's fields of the same names.

    Attributes:
        source_match, target_match: text in the path of these files; empty: the modality decides.
        frames: "any": images of one study are paired although their frames of reference differ or are missing.
        reconstruction: the CT kernel that is preferred.
        axis: plane of the target's slices; "any": as they are, axial ones first.
        irregular: what is done with slices that are tilted, or not equally far apart.
    """

    source_match: str = ""
    target_match: str = ""
    frames: Literal["same", "any"] = "same"
    reconstruction: Literal["soft", "sharp", "any"] = "soft"
    axis: Literal["axial", "coronal", "sagittal", "any"] = "any"
    irregular: Literal["refuse", "resample"] = "refuse"


ANY = Choice()


@dataclass(frozen=True)
class Pair:
    """Holds a patient's source and target; `note` says how they were chosen where there was a choice.

    Attributes:
        source: source series; None where the source is simulated from the target.
    """

    source: Series | None
    target: Series
    note: str = ""


def pair(series: Sequence[Series], task: Task, *, root: Path, choice: Choice = ANY) -> tuple[list[Pair], list[Problem]]:
    """Returns one pair a patient: one frame of reference or NIfTI session, overlapping along the target's normal.

    Of several pairs, the first is that of the best images: PET corrected for attenuation, with a known unit; the wanted
    kernel; axial slices; one study; no image derived from others; then the largest overlap, and the most slices. Where
    the task simulates its sources and `source_match` is empty, a patient's longest target series stands alone.

    Returns:
        The pairs, and the patients without one; both in the order of patient IDs.

    Raises:
        InputError: no series can be a source, or none can be a target.
    """
    series = [replace(one, resampled=choice.irregular == "resample") for one in series]
    sides, expected = _sides(series, task, root, choice)
    patients = sorted({one.patient_id for one in series})
    results = [_of_patient(patient, series, sides, task, expected, choice) for patient in patients]
    return [one for one in results if isinstance(one, Pair)], [one for one in results if isinstance(one, Problem)]


def overlap_mm(source: Series, target: Series) -> float:
    """Returns the length along the target's normal that both series cover; negative where a gap lies between them."""
    normal = target.planes[0].normal
    (source_low, source_high), (target_low, target_high) = source.extent_mm(normal), target.extent_mm(normal)
    return min(source_high, target_high) - max(source_low, target_low)


def overlap_share(source: Series, target: Series) -> float:
    """Returns the share of the shorter series that the other covers, along the target's normal; 0 to 1."""
    normal = target.planes[0].normal
    shorter = min(high - low for low, high in (source.extent_mm(normal), target.extent_mm(normal)))
    return max(0.0, min(1.0, overlap_mm(source, target) / shorter)) if shorter else 0.0


def _fits(series: Series, root: Path, modality: str, match: str) -> bool:
    return series.modality == modality and match in str(series.files[0].relative_to(root))


def _sides(series: Sequence[Series], task: Task, root: Path, choice: Choice) -> tuple[dict[str, list[Series]], str]:
    """Returns the series of each side, without the source where it is simulated, and what every patient should have."""
    criteria = {
        "source": (task.source.modality, choice.source_match),
        "target": (task.target.modality, choice.target_match),
    }
    if task.simulation != "none" and not choice.source_match:
        del criteria["source"]
    sides = {side: [one for one in series if _fits(one, root, *criterion)] for side, criterion in criteria.items()}
    names = {side: f"{kind} ({match!r} in its path)" if match else kind for side, (kind, match) in criteria.items()}
    expected = " and ".join(names.values())
    if not all(sides.values()):
        found = " and ".join(f"{len(sides[side])} {names[side]}" for side in reversed(names))
        raise InputError("E-PAIR-01", expected=expected, found=found)
    return sides, expected


def _of_patient(
    patient_id: str,
    series: Sequence[Series],
    sides: Mapping[str, Sequence[Series]],
    task: Task,
    expected: str,
    choice: Choice,
) -> Pair | Problem:
    candidates = {side: _candidates(patient_id, ones) for side, ones in sides.items()}
    if not all(candidates.values()):
        modalities = sorted({one.modality for one in series if one.patient_id == patient_id})
        return Problem(patient_id, f"expected {expected}; got only {', '.join(modalities)}")
    targets = _in_plane(candidates["target"], choice.axis)
    if not targets:
        got = ", ".join(sorted({one.axis for one in candidates["target"]}))
        return Problem(
            patient_id, f"{task.target.modality}: expected {choice.axis} slices (the plan's axis); got {got}"
        )
    if "source" in candidates:
        return _best_pair(patient_id, candidates["source"], targets, task, choice)
    return _target_alone(targets, task)


def _candidates(patient_id: str, series: Sequence[Series]) -> list[Series]:
    """Returns a patient's regular stacks; only where there is none, series of several phases or echoes."""
    mine = [one for one in series if one.patient_id == patient_id]
    return [one for one in mine if one.regular] or mine


def _in_plane(series: Sequence[Series], axis: str) -> list[Series]:
    """Returns the series whose slices lie in a plane; NIfTI images are turned into it."""
    turned = [along(one, axis) if axis != "any" and is_nifti(one.files[0]) else one for one in series]
    return [one for one in turned if axis in ("any", one.axis)]


def _target_alone(targets: list[Series], task: Task) -> Pair:
    best = max(targets, key=lambda one: (_quality(one), len(one.files), one.series_uid))
    several = f"took the longest of {len(targets)} {task.target.modality} series; target_match=TEXT takes others"
    return Pair(None, best, several if len(targets) > 1 else "")


def _best_pair(
    patient_id: str, sources: list[Series], targets: list[Series], task: Task, choice: Choice
) -> Pair | Problem:
    names = f"{task.source.modality} and {task.target.modality}"
    together = [(source, target) for source in sources for target in targets if _in_one_place(source, target, choice)]
    if not together:
        return Problem(patient_id, f"no {names} share {_what_is_not_shared(sources, targets)}")
    overlapping = [one for one in together if overlap_mm(*one) > 0]
    if not overlapping:
        return Problem(patient_id, f"{names}: the bodies do not meet: the images do not overlap along the slice normal")
    source, target = max(overlapping, key=lambda one: _preference(one[0], one[1], choice))
    return Pair(source, target, _note(source, target, overlapping))


def _in_one_place(source: Series, target: Series, choice: Choice) -> bool:
    if source.series_uid == target.series_uid and source.files == target.files:
        return False
    one_study = source.study_uid == target.study_uid
    if source.frame_of_reference == target.frame_of_reference != "":
        by_path = bool(choice.source_match and choice.target_match)  # the paths tell both sides
        return one_study or by_path or source.frame_of_reference != NIFTI
    return choice.frames == "any" and one_study


def _what_is_not_shared(sources: Sequence[Series], targets: Sequence[Series]) -> str:
    if targets[0].frame_of_reference == NIFTI:
        return "a session"
    frames = [{one.frame_of_reference for one in ones} for ones in (sources, targets)]
    state = "it is missing in some" if "" in frames[0] | frames[1] else "theirs differ"
    studies = {one.study_uid for one in sources} & {one.study_uid for one in targets}
    hint = (
        "; `medgan prepare --set frames=any` pairs images of one study and checks that the bodies meet"
        if studies
        else ""
    )
    return f"a frame of reference ({state}){hint * bool(studies)}"


def _quality(one: Series) -> tuple[bool, bool, bool, bool]:
    return one.attenuation_corrected, one.unit_named, one.axis == "axial", one.original


def _preference(source: Series, target: Series, choice: Choice) -> tuple[object, ...]:
    corrected, unit_named, *_ = _quality(source)
    return (
        corrected,
        unit_named,
        rank(source, choice.reconstruction) + rank(target, choice.reconstruction),
        target.axis == "axial",
        source.study_uid == target.study_uid,
        source.original + target.original,
        round(overlap_mm(source, target), 1),
        len(source.files) + len(target.files),
        source.series_uid,
        target.series_uid,
    )


def _note(source: Series, target: Series, candidates: Sequence[tuple[Series, Series]]) -> str:
    notes = []
    if len(candidates) > 1:
        studies = len({one.study_uid for one, _ in candidates})
        kernel = f", kernel {target.kernel}" if target.kernel else ""
        notes.append(
            f"took 1 of {len(candidates)} possible pairs in {studies} {'study' if studies == 1 else 'studies'}: "
            f"{len(source.files)} {source.modality} and {len(target.files)} {target.modality} slices{kernel} "
            f"that overlap by {overlap_mm(source, target):.0f} mm"
        )
    if source.study_uid != target.study_uid:
        notes.append("paired across two studies of one frame of reference")
    if source.frame_of_reference != target.frame_of_reference or not source.frame_of_reference:
        notes.append("paired although the frames of reference differ or are missing (frames=any)")
    return "; ".join(notes)
