"""One patient: a pair of series in, resampled arrays and a body mask on disk out."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgan.data.atomic import write_atomically
from medgan.data.manifest import Scale
from medgan.data.mask import body_mask
from medgan.data.pairing import Pair
from medgan.data.resample import Grid, in_plane_grid, resample
from medgan.data.series import read_volume
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import Task

ENOUGH_SUV = 0.1
ENOUGH_SHARE = 0.01  # of a slice's pixels inside the PET's field of view


@dataclass(frozen=True)
class Converted:
    """What was written of one patient; see `manifest.Patient`."""

    slice_numbers: list[int]
    dropped: int
    source: Scale
    target: Scale
    affine: list[list[float]]
    sha256: dict[str, str]


def convert(pair: Pair, folder: Path, *, task: Task, spacing_mm: float, size: int) -> Converted | str:
    """Write `source.npy`, `target.npy` and `mask.npy` of one patient into the new `folder`.

    Returns:
        What was written; or the reason why the patient cannot be used, which names no patient (a string and not
        an exception, because it crosses from a worker process).
    """
    try:
        target_volume = read_volume(pair.target)
        grid = in_plane_grid(target_volume, spacing_mm=spacing_mm, size=size)
        target = resample(target_volume, grid, task.target.background)
        source, keep = _source_on(grid, read_volume(pair.source), task)
    except InputError as error:
        return str(error)
    if not keep.any():
        return f"no slice of the {len(keep)} shows enough {task.source.modality}"
    folder.mkdir()
    source_scale, source_stored = _as_int16(source[keep])
    target_scale, target_stored = _as_int16(target.array[keep])
    arrays = {"source.npy": source_stored, "target.npy": target_stored, "mask.npy": body_mask(target.array)[keep]}
    return Converted(
        slice_numbers=np.flatnonzero(keep).tolist(),
        dropped=int((~keep).sum()),
        source=source_scale,
        target=target_scale,
        affine=grid.affine.tolist(),
        sha256={name: _write(folder / name, array) for name, array in arrays.items()},
    )


def _source_on(grid: Grid, source: Volume, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The source on the grid, (slices, H, W), and which slices hold enough of it, bool (slices,)."""
    array = resample(source, grid, np.nan).array
    inside = ~np.isnan(array)
    active = (array >= ENOUGH_SUV).sum(axis=(1, 2))  # NaN compares false
    keep = (active > 0) & (active >= ENOUGH_SHARE * inside.sum(axis=(1, 2)))
    return np.where(inside, array, np.float32(task.source.background)), keep


def _as_int16(array: np.ndarray) -> tuple[Scale, np.ndarray]:
    """Spread the values over all of int16 but its lowest number, so that the scale is symmetric."""
    low, high = float(array.min()), float(array.max())
    slope = (high - low) / 65534 or 1.0
    intercept = (high + low) / 2
    stored = np.rint((array.astype(np.float64) - intercept) / slope).astype(np.int16)
    return Scale(slope=slope, intercept=intercept), stored


def _write(path: Path, array: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
