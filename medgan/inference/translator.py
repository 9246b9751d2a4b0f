"""Translates slices and volumes with a trained generator, from physical units to physical units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medgan.data.intensity import from_network, to_network, window_of
from medgan.data.prepare.body_mask import body_threshold
from medgan.data.prepare.resample import in_plane_grid, resample
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import Task

EDGE_TOLERANCE = 1e-6  # pixels: a center on the border of the field of view is inside


@dataclass(frozen=True)
class NetworkInput:
    """Describes what a network takes: everything about a translator but the network.

    Attributes:
        spacing_mm: in-plane spacing of the training's grid.
        size: rows and columns of the training's grid.
        axis: plane of the training's slices; "any": not known.
    """

    task: Task
    spacing_mm: float
    size: int
    axis: str = "any"


@dataclass(frozen=True)
class Placed:
    """Holds a source on the network's grid, and what the result needs to know of the source itself.

    Attributes:
        volume: the source in its unit on the network's in-plane grid.
        affine, shape: of the source's own grid, as in `Volume`.
        window: values of the source that become -1 and 1.
        notes: those of the source.
        outside: share of the body's voxels whose centers lie outside the network's grid, in-plane; 0 to 1.
    """

    volume: Volume
    affine: np.ndarray
    shape: tuple[int, ...]
    window: tuple[float, float]
    notes: tuple[str, ...]
    outside: float


@dataclass(frozen=True)
class Translator:
    """Holds a generator, and everything needed to use it on images in physical units.

    Attributes:
        network: (B, 1, H, W) to (B, 1, H, W), both in [-1, 1]; H and W multiples of `network.divisor`. It is put
            into evaluation mode.
        spacing_mm: in-plane spacing of the training's grid.
        size: rows and columns of the training's grid.
        axis: plane of the training's slices; "any": not known.
    """

    network: nn.Module
    task: Task
    spacing_mm: float
    size: int
    axis: str = "any"

    def __post_init__(self) -> None:
        self.network.eval()

    @property
    def input(self) -> NetworkInput:
        """Returns what the network takes."""
        return NetworkInput(self.task, self.spacing_mm, self.size, self.axis)


def translate_slices(
    translator: Translator, values: np.ndarray, *, window: tuple[float, float] | None = None, batch_size: int = 16
) -> np.ndarray:
    """Translates slices of any size that are already at the network's spacing.

    Slices smaller than the training's grid are padded to it with background, as they were for the training. The
    output has the source's window if the target has no window of its own, such as MR.

    Args:
        values: (B, rows, columns) in the source's unit.
        window: values that become -1 and 1; None: the window of the task or, if it has none, of these slices.

    Returns:
        float32 (B, rows, columns) in the target's unit.

    Raises:
        InputError: the shape is wrong, or values are not finite.
    """
    _check_values(values)
    network, task = translator.network, translator.task
    window = window or window_of(values, task.source)
    divisor, background = int(network.divisor), task.source.background  # type: ignore[arg-type]
    lengths = [max(length, translator.size) for length in values.shape[1:]]
    sides = [length + -length % divisor for length in lengths]
    padded, inside = _padded(values.astype(np.float32, copy=False), sides, background)
    source = torch.from_numpy(to_network(padded, window))[:, None]
    device = next(network.parameters(), source).device
    with torch.inference_mode():
        output = [network(batch.to(device)).float().cpu() for batch in source.split(batch_size)]
    return from_network(torch.cat(output)[:, 0].numpy(), task.target.window or window)[inside]


def translate_volume(
    translator: Translator, volume: Volume, *, batch_size: int = 16, progress: Callable[[int, int], None] | None = None
) -> Volume:
    """Translates a volume slice by slice, at the network's in-plane spacing.

    Args:
        volume: source in its unit, at any in-plane spacing.
        progress: called with (slices done, slices of the volume) after each pass.

    Returns:
        The target in its unit, with the slices of the source, and with those pixels of the network's grid whose centers
        lie inside the source's field of view.

    Raises:
        InputError: the unit of the volume is not that of the task's source.
    """
    return translate_placed(translator, place(volume, translator.input), batch_size=batch_size, progress=progress)


def place(volume: Volume, wanted: NetworkInput) -> Placed:
    """Returns a source on the network's grid.

    Raises:
        InputError: the unit of the volume is not that of the task's source.
    """
    task, image = wanted.task, wanted.task.source
    if volume.unit != image.unit:
        raise InputError(
            "E-TRANSLATE-07", task_name=task.name, modality=image.modality, unit=image.unit, unit_2=volume.unit
        )
    grid = in_plane_grid(volume, spacing_mm=wanted.spacing_mm, size=wanted.size)
    window = window_of(volume.array, image)
    return Placed(
        volume=resample(volume, grid, image.background),
        affine=volume.affine,
        shape=volume.array.shape,
        window=window,
        notes=volume.notes,
        outside=_outside_share(volume, body_threshold(image, window), wanted.size * wanted.spacing_mm / 2),
    )


def translate_placed(
    translator: Translator, placed: Placed, *, batch_size: int = 16, progress: Callable[[int, int], None] | None = None
) -> Volume:
    """Translates a source that `place` brought to the network's grid, see `translate_volume`."""

    def translated(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
        return translate_slices(translator, values, window=window, batch_size=batch_size)

    return in_batches(placed, translator.task.target.unit, translated, batch_size=batch_size, progress=progress)


def in_batches(
    placed: Placed,
    unit: str,
    translated: Callable[[np.ndarray, tuple[float, float]], np.ndarray],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Volume:
    """Returns the translated volume, see `translate_volume`.

    Args:
        unit: of the result.
        translated: returns (B, rows, columns) for slices of the same shape and the window of their volume.
    """
    source = placed.volume
    output = np.empty_like(source.array)
    for start in range(0, len(output), batch_size):
        batch = slice(start, start + batch_size)
        output[batch] = translated(source.array[batch], placed.window)
        if progress is not None:
            progress(min(start + batch_size, len(output)), len(output))
    return _inside(source.with_array(output, unit), placed)


def _inside(volume: Volume, placed: Placed) -> Volume:
    """Returns the part of a volume whose pixel centers lie in the source's in-plane field of view, edges included."""
    to_source = np.linalg.inv(placed.affine) @ volume.affine
    _, num_rows, num_columns = placed.shape
    columns = _covered(to_source[0, 0], to_source[0, 3], volume.array.shape[2], num_columns)
    rows = _covered(to_source[1, 1], to_source[1, 3], volume.array.shape[1], num_rows)
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ (columns.start, rows.start, 0, 1))[:3]
    return Volume(volume.array[:, rows, columns], affine, volume.frame_of_reference, volume.unit)


def _outside_share(volume: Volume, threshold: float, half_mm: float) -> float:
    body = volume.array > threshold
    _, rows, columns = volume.array.shape
    offsets = [
        np.abs(np.arange(count) - (count - 1) / 2) * step > half_mm
        for count, step in ((rows, volume.spacing_mm[1]), (columns, volume.spacing_mm[0]))
    ]
    outside = offsets[0][:, None] | offsets[1][None, :]
    total = np.count_nonzero(body)
    return float(np.count_nonzero(body & outside)) / total if total and outside.any() else 0.0


def _check_values(values: np.ndarray) -> None:
    if values.ndim != 3 or 0 in values.shape:
        raise InputError("E-TRANSLATE-08", values_shape=values.shape)
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise InputError("E-TRANSLATE-09", bad=bad, values_size=values.size)


def _padded(values: np.ndarray, sides: Sequence[int], background: float) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Pads rows and columns on both sides to the given sides; returns the result and the index that undoes it."""
    missing = [0, *(side - length for side, length in zip(sides, values.shape[1:], strict=True))]
    before = [total // 2 for total in missing]
    widths = [(first, total - first) for first, total in zip(before, missing, strict=True)]
    padded = np.pad(values, widths, constant_values=background)
    inside = tuple(slice(first, first + length) for first, length in zip(before, values.shape, strict=True))
    return padded, inside


def _covered(step: float, first: float, length: int, source_length: int) -> slice:
    """Returns the indices i < length for which first + i * step lies between the outer edges of the source's pixels."""
    positions = first + step * np.arange(length)
    low, high = -0.5 - EDGE_TOLERANCE, source_length - 0.5 + EDGE_TOLERANCE
    indices = np.flatnonzero((positions >= low) & (positions <= high))
    return slice(int(indices[0]), int(indices[-1]) + 1)
