"""Splits what one Series Instance UID holds into stacks, by plane, kernel, echo or acquisition; joins PET beds."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pydicom

from medgan.data.dicom.geometry import ANGLE_TOLERANCE, SAME_PLACE_MM, SPACING_TOLERANCE, Plane
from medgan.data.dicom.header import Slice
from medgan.data.dicom.tolerance import DAMAGE, tolerant
from medgan.data.unpack import opened

FEWEST = 3  # slices of a stack; fewer in another plane than the rest are scouts
LEAST_SHARED = 0.5  # of the length: stacks that share less are stations or beds, and belong together
SCOUTS = "scout inside a series"
COPIES, OVERLAP = "same slice twice", "slice of an overlapping bed"
SAME_IN_COPIES = ("RescaleSlope", "RescaleIntercept", "AcquisitionDate", "AcquisitionTime", "FrameReferenceTime")
Key = Callable[[Slice], Hashable]
KINDS: tuple[tuple[str, Key], ...] = (
    ("kernels", lambda one: one.kernel),
    ("echo times", lambda one: one.echo_time),
    ("acquisitions", lambda one: one.acquisition),
    ("time points", lambda one: one.time_point),
)


class Stack(NamedTuple):
    """Holds slices that may form one regular stack; `note` says how they were told from others of their series."""

    slices: list[Slice]
    note: str = ""


def split(slices: Sequence[Slice], passed_over: Counter[str]) -> list[Stack]:
    """Returns the stacks in one series, each usable on its own, sorted by their number of slices, the longest first.

    A series stays whole where nothing tells its slices apart, such as the time points of a dynamic PET.

    Args:
        slices: slices of one series, all with a plane.
        passed_over: counts files of scouts and of copies, by reason.
    """
    planes = sorted(_by_plane(slices), key=len, reverse=True)
    stacks = [planes[0], *(group for group in planes[1:] if len(group) >= FEWEST)]
    scouts = [one for group in planes[1:] if len(group) < FEWEST for one in group]
    passed_over[SCOUTS] += len({one.path for one in scouts})
    notes = [f"{len(scouts)} scout slices of the series left out"] * bool(scouts)
    notes += [f"1 of {len(stacks)} planes or pixel sizes in one series"] * (len(stacks) > 1)
    parts = [part for stack in stacks for part in _parts(stack, "; ".join(notes), passed_over)]
    return sorted(parts, key=lambda part: -len(part.slices))


def _by_plane(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Returns the slices in groups of one orientation, size and pixel spacing, within a tolerance."""
    groups: list[tuple[Plane, list[Slice]]] = []
    known: dict[Hashable, list[Slice]] = {}
    for one, plane in zip(slices, planes_of(slices), strict=True):
        key = plane[1:]
        if key not in known:
            near = next((group for first, group in groups if _same_plane(first, plane)), None)
            if near is None:
                near = []
                groups.append((plane, near))
            known[key] = near
        known[key].append(one)
    return [group for _, group in groups]


def _same_plane(first: Plane, second: Plane) -> bool:
    if first.size != second.size or not np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=SPACING_TOLERANCE):
        return False
    return bool(np.allclose(first.orientation, second.orientation, rtol=0, atol=10 * ANGLE_TOLERANCE))


def _parts(stack: list[Slice], note: str, passed_over: Counter[str]) -> list[Stack]:
    places = places_of(stack)
    if np.diff(np.sort(places)).min(initial=np.inf) > SAME_PLACE_MM:
        return _told_apart(stack, note, _interleaved) or [Stack(stack, note)]
    kinds = KINDS[:1] if stack[0].modality == "PT" else KINDS  # the time points of a PET stay together
    return _told_apart(stack, note, _each_apart, kinds) or [_joined_slices(stack, note, passed_over)]


def _told_apart(
    stack: list[Slice], note: str, holds: Callable[[list[list[Slice]]], bool], kinds: Sequence[tuple[str, Key]] = KINDS
) -> list[Stack]:
    """Returns the parts that differ in the first attribute for which a condition holds; none if there is none."""
    for name, key in kinds:
        parts = _by(stack, key)
        if len(parts) > 1 and holds(parts):
            return [Stack(part, _joined(note, f"1 of {len(parts)} {name} in one series")) for part in parts]
    return []


def _each_apart(parts: list[list[Slice]]) -> bool:
    return all(_apart(part) for part in parts)


def _interleaved(parts: list[list[Slice]]) -> bool:
    """Returns whether acquisitions or kernels of a CT cover the same length, one between the slices of the other."""
    of_ct = parts[0][0].modality == "CT"
    return of_ct and min(map(len, parts)) >= FEWEST and _shared(parts) >= LEAST_SHARED


def _joined_slices(stack: list[Slice], note: str, passed_over: Counter[str]) -> Stack:
    """Returns the stack without copies, and without what overlapping beds of a PET have twice."""
    once = _without_copies(stack)
    passed_over[COPIES] += len({one.path for one in stack} - {one.path for one in once})
    num_copies = len(stack) - len(once)
    note = _joined(note, f"{num_copies} identical slices used once" if num_copies else "")
    if stack[0].modality != "PT" or not _partly(places_of(once)):
        return Stack(once, note)
    joined = _beds_joined(once)
    passed_over[OVERLAP] += len(once) - len(joined)
    return Stack(joined, _joined(note, f"{len(once) - len(joined)} slices of overlapping beds left out"))


def _beds_joined(stack: Sequence[Slice]) -> list[Slice]:
    """Returns one slice for each place: that of the bed with the most slices, or the earlier one."""
    beds = Counter(one.acquisition_time for one in stack)
    kept: dict[float, Slice] = {}
    places = np.round(places_of(stack), 3).tolist()
    ranked = sorted(zip(places, stack, strict=True), key=lambda pair: _rank(beds, pair[1]), reverse=True)
    for place, one in ranked:
        kept[place] = one  # the last is that of the best bed
    return list(kept.values())


def _rank(beds: Counter[str], one: Slice) -> tuple[int, str]:
    return -beds[one.acquisition_time], one.acquisition_time


def _by(stack: Sequence[Slice], key: Key) -> list[list[Slice]]:
    parts: dict[Hashable, list[Slice]] = defaultdict(list)
    for one in stack:
        parts[key(one)].append(one)
    return list(parts.values())


def planes_of(stack: Sequence[Slice]) -> tuple[Plane, ...]:
    """Returns the plane of every slice."""
    return tuple(one.plane for one in stack if one.plane is not None)


def places_of(stack: Sequence[Slice]) -> np.ndarray:
    """Returns how far each slice lies along the normal of the first, in mm."""
    planes = planes_of(stack)
    return np.array([plane.position for plane in planes]) @ planes[0].normal


def _apart(stack: Sequence[Slice]) -> bool:
    return len(stack) > 1 and bool(np.diff(np.sort(places_of(stack))).min() > SAME_PLACE_MM)


def _partly(places: np.ndarray) -> bool:
    """Returns whether a third of the slices at most repeat a place: neighboring beds overlap, time points repeat."""
    repeated = int((np.diff(np.sort(places)) <= SAME_PLACE_MM).sum())
    return 0 < 3 * repeated <= len(places)


def _shared(parts: Sequence[Sequence[Slice]]) -> float:
    """Returns the length that all parts cover, as a share of the shortest part's."""
    ends = [(float(places.min()), float(places.max())) for places in map(places_of, parts)]
    shortest = min(high - low for low, high in ends)
    return (min(high for _, high in ends) - max(low for low, _ in ends)) / (shortest or 1.0)


def _without_copies(stack: Sequence[Slice]) -> list[Slice]:
    """Returns the slices without those that have the place and the pixels of an earlier one."""
    at: Counter[float] = Counter(np.round(places_of(stack), 3).tolist())
    kept: list[Slice] = []
    seen: set[tuple[float, str]] = set()
    for one, place in zip(stack, np.round(places_of(stack), 3).tolist(), strict=True):
        pixels = _pixels(one) if at[place] > 1 else ""
        if not pixels or (place, pixels) not in seen:
            kept.append(one)
        seen.add((place, pixels))
    return kept


def _pixels(one: Slice) -> str:
    """Returns a digest of the slice's stored pixels, rescaling and times; empty where they cannot be read."""
    try:
        with opened(one.path) as file, tolerant():
            dataset = pydicom.dcmread(file, force=True)
            if "NumberOfFrames" in dataset:
                return ""
            facts = "\\".join(str(dataset.get(name)) for name in SAME_IN_COPIES)
            return hashlib.sha256(dataset.PixelData + facts.encode()).hexdigest()
    except (*DAMAGE, OSError):
        return ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
