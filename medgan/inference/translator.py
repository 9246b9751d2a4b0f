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
    image = translator.task.source
    if volume.unit != image.unit:
        name = translator.task.name
        raise InputError("E-TRANSLATE-07", task_name=name, modality=image.modality, unit=image.unit, unit_2=volume.unit)
    grid = in_plane_grid(volume, spacing_mm=translator.spacing_mm, size=translator.size)
    placed = resample(volume, grid, image.background)
    output, window = np.empty_like(placed.array), window_of(volume.array, image)
    for start in range(0, len(output), batch_size):
        batch = slice(start, start + batch_size)
        output[batch] = translate_slices(translator, placed.array[batch], window=window, batch_size=batch_size)
        if progress is not None:
            progress(min(start + batch_size, len(output)), len(output))
    return _inside(placed.with_array(output, translator.task.target.unit), volume)


def outside_share(translator: Translator, volume: Volume) -> float:
    """Returns the share of the body's voxels whose centers lie outside the network's grid, in-plane; 0 to 1."""
    image = translator.task.source
    body = volume.array > body_threshold(image, window_of(volume.array, image))
    _, rows, columns = volume.array.shape
    half_mm = translator.size * translator.spacing_mm / 2
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


def _inside(volume: Volume, source: Volume) -> Volume:
    """Returns the part of a volume whose pixel centers lie in the source's in-plane field of view, edges included."""
    to_source = np.linalg.inv(source.affine) @ volume.affine
    _, num_rows, num_columns = source.array.shape
    columns = _covered(to_source[0, 0], to_source[0, 3], volume.array.shape[2], num_columns)
    rows = _covered(to_source[1, 1], to_source[1, 3], volume.array.shape[1], num_rows)
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ (columns.start, rows.start, 0, 1))[:3]
    return Volume(volume.array[:, rows, columns], affine, volume.frame_of_reference, volume.unit)


def _covered(step: float, first: float, length: int, source_length: int) -> slice:
    """Returns the indices i < length for which first + i * step lies between the outer edges of the source's pixels."""
    positions = first + step * np.arange(length)
    low, high = -0.5 - EDGE_TOLERANCE, source_length - 0.5 + EDGE_TOLERANCE
    indices = np.flatnonzero((positions >= low) & (positions <= high))
    return slice(int(indices[0]), int(indices[-1]) + 1)
