"""Converts one patient: reads a pair of series and writes resampled arrays and a body mask."""

import hashlib
import io
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medgan.data.atomic_write import flush_folder, write_atomically
from medgan.data.intensity import window_of
from medgan.data.manifest import IntensityScale
from medgan.data.prepare.body_mask import body_threshold
from medgan.data.prepare.freshness import RECORD
from medgan.data.prepare.pair_picture import PICTURE, PairSide, draw_pair
from medgan.data.prepare.pairing import Pair, overlap_share
from medgan.data.prepare.plan import Plan, write_json
from medgan.data.prepare.registration import register_rigid
from medgan.data.prepare.resample import in_plane_grid, resample
from medgan.data.prepare.same_body import Compared, check_own_body, compared, mask_of, no_overlap
from medgan.data.prepare.simulation import simulated
from medgan.data.reader import read_volume
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import Task

CROPPED = "cropped"
ENOUGH_SHARE = 0.01  # least share of body pixels among those inside the source's field of view, in a slice


@dataclass(frozen=True)
class Conversion:
    """Describes a patient to convert.

    Attributes:
        patient: hash of the patient.
        folder: folder to write; it appears when it is complete.
    """

    patient: str
    pair: Pair
    folder: Path


def convert(job: Conversion, *, plan: Plan) -> dict[str, Any]:
    """Writes `source.npy`, `target.npy`, `mask.npy`, `picture.svg` and `patient.json`, their record, for one patient.

    Returns:
        The content of `patient.json`.

    Raises:
        InputError: the patient cannot be used; the message names no patient.
    """
    record, arrays, picture = _converted(job, plan)
    part = job.folder.with_name(f".{job.folder.name}.part")
    for leftover in (part, job.folder):  # from a killed run, or damaged
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        digests = {f"{name}.npy": _write(part / f"{name}.npy", array) for name, array in arrays.items()}
        write_atomically(part / PICTURE, picture.encode())
        record["sha256"] = digests
        write_json(part / RECORD, record)
        os.replace(part, job.folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    flush_folder(job.folder.parent)
    return record


def _converted(job: Conversion, plan: Plan) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Returns the record of a patient without its digests, the arrays, and a picture of them."""
    task = plan.windowed()
    target_volume = read_volume(job.pair.target, plan.bounds)
    check_own_body(target_volume, task.target, plan.bounds)
    source_volume, notes, drawn = _source(job, plan, target_volume)
    grid = in_plane_grid(target_volume, spacing_mm=plan.spacing_mm, size=plan.size)
    target, source = resample(target_volume, grid, task.target.background), resample(source_volume, grid, np.nan)
    windows = window_of(source_volume.array, task.source), window_of(target_volume.array, task.target)
    inside = ~np.isnan(source.array)
    keep, filled = _with_enough(source.array, inside, source_volume, task, windows[0], plan.least_overlap)
    source = source.with_array(filled)
    mask = mask_of(target, task.target, windows[1])
    found = compared(
        Compared(source_volume, target_volume, source, inside, target, mask, keep), task, windows[0],
        covered=_covered(job.pair, plan), plan=plan,
    )  # fmt: skip
    kept = slice(None) if keep.all() else keep  # no copy where nothing is dropped
    source_scale, source_stored = _as_int16(source.array[kept])
    target_scale, target_stored = _as_int16(target.array[kept])
    all_notes = (job.pair.note, *target_volume.notes, *notes, _cropped(target_volume, plan))
    record = {
        "slices": int(keep.sum()),
        "slice_numbers": np.flatnonzero(keep).tolist(),
        "dropped": int((~keep).sum()),
        "source": source_scale.model_dump(),
        "target": target_scale.model_dump(),
        "source_window": windows[0],
        "target_window": windows[1],
        "affine": grid.affine.tolist(),
        "overlap": found.mask_overlap,
        "mutual_information": found.mutual_information,
        "notes": [note for note in dict.fromkeys(all_notes) if note],
        "drawn": drawn,
    }
    picture = draw_pair(
        PairSide(task.source, source_stored, source_scale, windows[0]),
        PairSide(task.target, target_stored, target_scale, windows[1]),
    )
    return record, {"source": source_stored, "target": target_stored, "mask": mask[kept]}, picture


def _source(job: Conversion, plan: Plan, target: Volume) -> tuple[Volume, list[str], dict[str, list]]:
    """Returns the source on its own grid, simulated or registered as the plan says, with notes and drawn values."""
    if job.pair.source is None:
        assert plan.simulation is not None, "a source that is not given is simulated"
        source, drawn = simulated(target, plan.simulation, patient=job.patient)
        return source, [], drawn
    source = read_volume(job.pair.source, plan.bounds)
    if plan.registration == "none":
        frame = target.frame_of_reference if plan.frames == "any" else source.frame_of_reference
        return replace(source, frame_of_reference=frame), [*source.notes], {}
    moved, found = register_rigid(source, target)
    middle = source.affine @ [*(np.array(source.array.shape[::-1]) - 1) / 2, 1]
    shift_mm = np.linalg.norm(moved.affine @ np.linalg.inv(source.affine) @ middle - middle)
    note = f"registered: the middle moved by {shift_mm:.1f} mm; bodies then overlap by {found.mask_overlap:.2f}"
    return moved, [*source.notes, note], {}


def _covered(pair: Pair, plan: Plan) -> float | None:
    """Returns the share of the shorter stack that the other covers; 1 after a registration; None where simulated."""
    if pair.source is None:
        return None
    return overlap_share(pair.source, pair.target) if plan.registration == "none" else 1.0


def _cropped(target: Volume, plan: Plan) -> str:
    """Returns a note where the grid is too small for a target that was added after the plan was made, else ""."""
    extent_mm = max(np.multiply(target.array.shape[1:], target.spacing_mm[1::-1]))
    room_mm = plan.size * plan.spacing_mm
    return f"{CROPPED}: {extent_mm:.0f} mm wide, the grid holds {room_mm:.0f} mm" if extent_mm > room_mm * 1.01 else ""


def _with_enough(
    array: np.ndarray, inside: np.ndarray, whole: Volume, task: Task, window: tuple[float, float], least_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which slices show enough of the source, bool (slices,), and the source with background instead of NaN."""
    above = body_threshold(task.source, window)
    active = np.array([np.count_nonzero(one > above) for one in array])  # NaN (outside) compares false
    keep = (active > 0) & (active >= ENOUGH_SHARE * np.array([np.count_nonzero(one) for one in inside]))
    if keep.any():
        return keep, np.where(inside, array, np.float32(task.source.background))
    if (whole.array > above).mean() < ENOUGH_SHARE:
        raise InputError("E-CONVERT-02", num_keep=len(keep), modality=task.source.modality, made_of=whole.made_of)
    raise no_overlap(task, 0.0, least_overlap)


def _as_int16(array: np.ndarray) -> tuple[IntensityScale, np.ndarray]:
    """Spreads the values over all of int16 except its lowest number, so that the scale is symmetric."""
    low, high = float(array.min()), float(array.max())
    slope = (high - low) / 65534 or 1.0
    intercept = (high + low) / 2
    stored = np.empty(array.shape, np.int16)
    for number, one in enumerate(array):  # a slice in float64 fits into the processor's cache, a volume does not
        stored[number] = np.rint((one.astype(np.float64) - intercept) / slope)
    return IntensityScale(slope=slope, intercept=intercept), stored


def _write(path: Path, array: np.ndarray) -> str:
    """Writes an array as `np.save` does, without its copies, and returns the SHA-256 digest of the file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    parts = header.getvalue(), array.data.cast("B")
    write_atomically(path, *parts)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
