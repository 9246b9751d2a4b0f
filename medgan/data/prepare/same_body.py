"""Checks that an image shows a body with plausible values, and that source and target show the same body."""

import math
from dataclasses import dataclass, replace

import numpy as np

from medgan.data.intensity import window_of
from medgan.data.plausibility import Bounds, check_body, check_uptake, is_head
from medgan.data.prepare.body_mask import body_mask, body_mask_of_ct, body_threshold
from medgan.data.prepare.mirrored import Bodies, refuse_mirrored
from medgan.data.prepare.plan import Plan
from medgan.data.prepare.registration import Agreement, agreement
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import Image, Task

COMPARED_SIZE = 64  # images are compared on slices reduced to about this many rows
FEW = 16  # slices at most, spread evenly, are enough for a median and a histogram
PARALLEL = 0.9  # least cosine between the normals of slices in one plane
SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class Compared:
    """Holds source and target as they were read, and on one grid.

    Attributes:
        whole_source, whole_target: as they were read.
        inside: bool (slices, rows, columns): where the source was measured.
        mask: bool of the same shape: the target's body.
        keep: bool (slices,): which slices show enough of the source.
    """

    whole_source: Volume
    whole_target: Volume
    source: Volume
    inside: np.ndarray
    target: Volume
    mask: np.ndarray
    keep: np.ndarray


def mask_of(volume: Volume, image: Image, window: tuple[float, float]) -> np.ndarray:
    """Returns the mask of the body in a volume, bool (slices, rows, columns); `window` is that of the volume."""
    above = body_threshold(image, window)
    if image.modality == "CT":
        return body_mask_of_ct(volume.array, above, spacing_mm=volume.spacing_mm[0])
    return body_mask(volume.array, above)


def check_own_body(volume: Volume, image: Image, bounds: Bounds) -> None:
    """Refuses an image whose body or air is implausible, on its own grid, where nothing was padded or made coarser.

    Raises:
        InputError: see `medgan.data.plausibility.check_body`; or the image shows no body.
    """
    small = _reduced(replace(volume, array=_few(volume.array)))
    mask = mask_of(small, image, window_of(small.array, image))
    if not mask.any():
        raise InputError("E-CONVERT-02", num_keep=len(volume.array), modality=image.modality, made_of=volume.made_of)
    check_body(small.array, mask, image.modality, bounds, volume.made_of, head=volume.head)


def compared(
    pair: Compared, task: Task, source_window: tuple[float, float], *, covered: float | None, plan: Plan
) -> Agreement:
    """Returns how well source and target agree, on a regular subset of the pixels.

    Args:
        covered: share of the shorter stack of slices that the other covers; the overlap is not above it. None: the
            source is simulated, and nothing is checked.

    Raises:
        InputError: the bodies do not meet or differ in size, an image shows no body, the uptake in the body is
            implausible, or one image is mirrored.
    """
    step = _step(pair.mask)
    source, target = _reduced(pair.source, step), _reduced(pair.target, step)
    inside, mask = (np.ascontiguousarray(one[:, ::step, ::step]) for one in (pair.inside, pair.mask))
    seen = inside & pair.keep[:, None, None]
    body = mask & seen
    if covered is not None:
        _refuse_other_size(pair, task, source_window, plan.bounds)
    if not body.any():
        raise no_overlap(task, 0.0, plan.least_overlap)
    source_mask = body_mask(source.array, body_threshold(task.source, source_window))
    found = agreement(source, target, source_mask & pair.keep[:, None, None], mask & pair.keep[:, None, None])
    if covered is None:
        return found
    found = replace(found, mask_overlap=min(found.mask_overlap, covered))
    if found.mask_overlap < plan.least_overlap:
        raise no_overlap(task, found.mask_overlap, plan.least_overlap)
    if task.source.modality == "PT":
        head = task.target.modality == "CT" and is_head(target.array[body], plan.bounds)
        whole = pair.whole_source
        check_uptake(source.array[body], plan.bounds, whole.made_of, head=head or whole.head)
    few = [_few(array) for array in (source.array, source_mask & seen, target.array, body)]
    refuse_mirrored(Bodies(*few), task, plan.bounds.mirrored)
    return found


def no_overlap(task: Task, overlap: float, least_overlap: float) -> InputError:
    """Returns the error that the bodies do not meet."""
    return InputError(
        "E-CONVERT-01",
        modality=task.source.modality,
        modality_2=task.target.modality,
        mask_overlap=overlap,
        least_overlap=least_overlap,
    )


def _refuse_other_size(pair: Compared, task: Task, source_window: tuple[float, float], bounds: Bounds) -> None:
    """Raises InputError where sections of the body are much larger in one image, each on its own grid.

    Only slices that both images cover count. Images with slices in different planes are not compared.
    """
    normal = pair.whole_target.directions[:, 2]
    volumes = (pair.whole_source, pair.whole_target)
    places = [_places(volume, normal) for volume in volumes]
    if abs(pair.whole_source.directions[:, 2] @ normal) < PARALLEL:
        return
    low = max(float(one.min()) for one in places) - SAME_PLACE_MM
    high = min(float(one.max()) for one in places) + SAME_PLACE_MM
    windows = (source_window, window_of(pair.whole_target.array, task.target))
    areas = [
        _area_cm2(volume, (one >= low) & (one <= high), body_threshold(image, window))
        for volume, one, image, window in zip(volumes, places, (task.source, task.target), windows, strict=True)
    ]
    least, most = bounds.same_size
    if all(areas) and not least <= areas[0] / areas[1] <= most:
        raise InputError(
            "E-CONVERT-04",
            modality=task.source.modality,
            modality_2=task.target.modality,
            made_of=pair.whole_source.made_of,
            source_cm2=areas[0],
            target_cm2=areas[1],
            low=least,
            high=most,
        )


def _places(volume: Volume, normal: np.ndarray) -> np.ndarray:
    """Returns where the slices lie along a unit vector, in mm."""
    steps = np.arange(len(volume.array))[:, None] * volume.affine[:3, 2]
    return (volume.affine[:3, 3] + steps) @ normal


def _area_cm2(volume: Volume, chosen: np.ndarray, above: float) -> float:
    """Returns the mean area of the body in these slices, in cm2; 0 where no slice is chosen."""
    array = _few(volume.array[chosen])
    step = max(1, _step(array)) if array.size else 1
    column_mm, row_mm, _ = volume.spacing_mm
    area_mm2 = np.count_nonzero(array[:, ::step, ::step] > above) * step**2 * column_mm * row_mm
    return area_mm2 / len(array) / 100 if len(array) else 0.0


def _step(array: np.ndarray) -> int:
    return max(1, array.shape[1] // COMPARED_SIZE)


def _few(array: np.ndarray) -> np.ndarray:
    return array[:: max(1, math.ceil(len(array) / FEW))]


def _reduced(volume: Volume, step: int | None = None) -> Volume:
    step = step or _step(volume.array)
    array = np.ascontiguousarray(volume.array[:, ::step, ::step])
    return replace(volume, array=array, affine=volume.affine * [step, step, 1, 1])
