"""Measures how well two images of a patient agree, and corrects the position of one of them rigidly."""

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from medgan.data.intensity import window_of
from medgan.data.prepare.body_mask import body_mask, body_threshold
from medgan.data.prepare.resample import grid_of, resample
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import CT, MR, PET

NUM_BINS = 50
NUM_SAMPLES = 20_000
NUM_ITERATIONS = 200  # at each level
SMOOTHING_MM = (4.0, 2.0)  # Gaussian of each level; wide ones reach far, narrow ones are precise
FIRST_STEP_MM, LAST_STEP_MM, RELAXATION = 1.0, 0.001, 0.7
MARGIN_VOXELS = (6, 6, 1)  # columns, rows, slices around the body: distant air has no information and lets images slide
IMAGES = {image.unit: image for image in (CT, PET, MR)}


@dataclass(frozen=True)
class Agreement:
    """Describes how well two images agree.

    Attributes:
        mask_overlap: Dice coefficient of the two bodies, 0 to 1.
        mutual_information: normalized, 1 (independent) to 2 (one determines the other), inside either body.
    """

    mask_overlap: float
    mutual_information: float


def agreement(source: Volume, target: Volume, source_mask: np.ndarray, target_mask: np.ndarray) -> Agreement:
    """Returns the overlap of two bodies and their normalized mutual information, see `normalized_mutual_information`.

    Args:
        source: image on the target's grid.
        source_mask, target_mask: bool, (slices, rows, columns).

    Raises:
        InputError: the grids differ, or a mask is empty.
    """
    if source.array.shape != target.array.shape or not np.allclose(source.affine, target.affine, rtol=0, atol=1e-3):
        raise InputError(
            "E-REGISTER-01",
            array_shape=source.array.shape,
            array_shape_2=target.array.shape,
            spacing_mm=np.round(source.spacing_mm, 3).tolist(),
            spacing_mm_2=np.round(target.spacing_mm, 3).tolist(),
        )
    sizes = int(source_mask.sum()), int(target_mask.sum())
    if not all(sizes):
        raise InputError("E-REGISTER-02", sizes=sizes[0], sizes_2=sizes[1])
    either = source_mask | target_mask
    information = normalized_mutual_information(_windowed(source)[either], _windowed(target)[either])
    return Agreement(2 * int((source_mask & target_mask).sum()) / sum(sizes), information)


def normalized_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Returns (H(a) + H(b)) / H(a, b) of two lists of values, each in `NUM_BINS` equal bins; 1 where both are constant.

    The formula is Studholme's (1999), as in scikit-image, whose module takes half a second to import.
    """
    return mutual_information_of(bins_of(first), bins_of(second))


def mutual_information_of(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the normalized mutual information of two lists of bins, see `bins_of`."""
    joint = np.bincount(first * NUM_BINS + second, minlength=NUM_BINS**2).reshape(NUM_BINS, NUM_BINS)
    both = _entropy(joint.ravel())
    return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / both if both else 1.0


def bins_of(values: np.ndarray) -> np.ndarray:
    """Returns the number of each value's bin, 0 to `NUM_BINS` - 1, between the lowest and the highest value."""
    low, high = float(values.min()), float(values.max())
    return ((values - low) * (NUM_BINS / ((high - low) or 1.0))).astype(np.int64).clip(0, NUM_BINS - 1)


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def register_rigid(moving: Volume, fixed: Volume, *, seed: int = 0) -> tuple[Volume, Agreement]:
    """Turns and shifts one image onto another of the same patient, without interpolating it.

    The metric is Mattes mutual information (Mattes et al. 2003), from coarse to fine. Images in two frames of reference
    start with the centers of their bodies on each other, images in one frame as they are. The error is a fraction of a
    millimeter within one modality, and about 1 mm in-plane for PET on CT. Where the body hardly changes over a short
    stack of slices, as in a thigh, the PET may slide along the body by 10 mm.

    Args:
        moving: image whose affine is corrected; the modalities may differ.

    Returns:
        `moving` in `fixed`'s frame of reference, the same voxels at a corrected position; and how well it then agrees
        with `fixed`, compared on the grid of `fixed` where both fields of view overlap.

    Raises:
        InputError: an image shows no body, or the images do not overlap.
    """
    found = _matrix(_optimized(moving, fixed, _start(moving, fixed), seed))
    affine = np.linalg.inv(found) @ moving.affine
    corrected = replace(moving, affine=affine, frame_of_reference=fixed.frame_of_reference)
    moved = resample(corrected, grid_of(fixed), np.nan)
    inside = np.isfinite(moved.array)
    moved = moved.with_array(np.where(inside, moved.array, np.float32(IMAGES[moved.unit].background)))
    return corrected, agreement(moved, fixed, _body(moved) & inside, _body(fixed) & inside)


def _body(volume: Volume) -> np.ndarray:
    image = IMAGES[volume.unit]
    return body_mask(volume.array, body_threshold(image, window_of(volume.array, image)))


def _windowed(volume: Volume) -> np.ndarray:
    """Returns values clipped to their modality's window, so that a few extreme voxels do not stretch a histogram."""
    return volume.array.clip(*window_of(volume.array, IMAGES[volume.unit]))


def _start(moving: Volume, fixed: Volume) -> sitk.Euler3DTransform:
    """Returns the first transform from fixed to moving coordinates; it turns about the center of the fixed body."""
    middle, moving_middle = _middle(fixed), _middle(moving)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    if moving.frame_of_reference != fixed.frame_of_reference:
        transform.SetTranslation((moving_middle - middle).tolist())
    return transform


def _middle(volume: Volume) -> np.ndarray:
    """Returns the center of the body in mm, (3,)."""
    voxels = np.argwhere(_body(volume))
    if not len(voxels):
        raise InputError("E-REGISTER-03", unit=volume.unit)
    return (volume.affine @ [*voxels.mean(0)[::-1], 1])[:3]


def _optimized(moving: Volume, fixed: Volume, start: sitk.Euler3DTransform, seed: int) -> sitk.Transform:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(NUM_BINS)
    method.SetMetricFixedMask(_region(fixed))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, NUM_SAMPLES / fixed.array.size), seed + 1)  # seed 0 means the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(FIRST_STEP_MM, LAST_STEP_MM, NUM_ITERATIONS, RELAXATION)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetSmoothingSigmasPerLevel(SMOOTHING_MM)
    method.SetShrinkFactorsPerLevel([1] * len(SMOOTHING_MM))
    method.SetInitialTransform(start)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # one order of sums: the same seed gives the same transform
    try:
        return method.Execute(_image(fixed, _windowed(fixed)), _image(moving, _windowed(moving)))
    except RuntimeError as error:
        raise InputError("E-REGISTER-04", moving_shape=moving.array.shape, fixed_shape=fixed.array.shape) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _region(volume: Volume) -> sitk.Image:
    """Returns the body and a margin, the region in which images are compared."""
    return sitk.BinaryDilate(_image(volume, _body(volume).astype(np.uint8)), MARGIN_VOXELS)


def _image(volume: Volume, array: np.ndarray) -> sitk.Image:
    """Returns the array as an image at the volume's position."""
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection(volume.directions.ravel().tolist())
    return image


def _matrix(transform: sitk.Transform) -> np.ndarray:
    """Returns the (4, 4) matrix of a rigid transform."""
    corners = np.array([transform.TransformPoint(point) for point in np.vstack([np.zeros(3), np.eye(3)]).tolist()])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (corners[1:] - corners[0]).T, corners[0]
    return matrix
