"""Simulates patient motion during an MR scan in k-space (Shaw et al. 2019, MIDL) with TorchIO."""

from dataclasses import dataclass

import numpy as np
import torchio

from medgan.data.volume import Volume
from medgan.errors import InputError

NUM_MOVEMENTS = 2
DEGREES, TRANSLATION_MM = 10.0, 10.0  # TorchIO's defaults, at severity 1
TIME_SPREAD = 0.3  # of the interval between movements
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
PHASE_LAST = [0, 2, 1]  # columns, slices, rows: TorchIO replaces k-space along the last axis


@dataclass(frozen=True)
class Motion:
    """Holds the movements of a patient during a scan, in plain numbers that JSON stores exactly.

    Attributes:
        degrees: (movements, 3): rotation about the patient's x, y and z axis through the middle of the volume.
        translation_mm: (movements, 3): shift along these axes.
        times: (movements,): start of each movement, as a share of the scan; ascending.
    """

    degrees: list[list[float]]
    translation_mm: list[list[float]]
    times: list[float]


def draw_motion(random: np.random.Generator, *, severity: float) -> Motion:
    """Draws two sudden movements, at about a third and two thirds of the scan.

    Args:
        random: generator; the number of draws is the same for every severity.
        severity: 1 gives rotations within 10 degrees and shifts within 10 mm, TorchIO's defaults; other values scale
            both, and 0 gives no motion.

    Raises:
        InputError: severity is negative or not finite.
    """
    if not (np.isfinite(severity) and severity >= 0):
        raise InputError("E-SIMULATE-04", severity=severity)
    degrees = severity * random.uniform(-DEGREES, DEGREES, (NUM_MOVEMENTS, 3))
    translation_mm = severity * random.uniform(-TRANSLATION_MM, TRANSLATION_MM, (NUM_MOVEMENTS, 3))
    interval = 1 / (NUM_MOVEMENTS + 1)
    times = interval * (np.arange(1, NUM_MOVEMENTS + 1) + random.uniform(-TIME_SPREAD, TIME_SPREAD, NUM_MOVEMENTS))
    return Motion(degrees.tolist(), translation_mm.tolist(), times.tolist())


def apply_motion(volume: Volume, motion: Motion) -> Volume:
    """Returns the volume as scanned during motion: ghosts along the rows' axis, the phase-encoding direction.

    Each movement changes the pose from which the rest of k-space is read; the middle of k-space keeps the unmoved pose,
    so that the result lies where the original does. From a severity of about 0.3 on, the other lines move by more than
    the details they hold, and the error changes but hardly grows. Voxels that enter from outside the field of view have
    the value of its outermost voxel.

    Args:
        volume: magnitudes, at least 0.

    Returns:
        float32 on the same grid, at least 0 as magnitudes are; `volume` itself where there is no motion.
    """
    if not (np.any(motion.degrees) or np.any(motion.translation_mm)):
        return volume
    padding = _padding(volume, motion)
    padded = np.pad(volume.array, [(width, width) for width in padding], mode="edge")
    transform = torchio.Motion(
        degrees=np.array(motion.degrees),
        translation=np.array(motion.translation_mm),
        times=np.array(motion.times),
        image_interpolation="linear",
    )
    image = torchio.ScalarImage(tensor=padded.transpose(2, 0, 1)[None], affine=_affine(volume, padded.shape))
    moved = transform(image).data[0].numpy().transpose(1, 2, 0)
    slices, rows, columns = (
        slice(width, width + count) for width, count in zip(padding, volume.array.shape, strict=True)
    )
    return volume.with_array(np.ascontiguousarray(np.abs(moved[slices, rows, columns])))


def _padding(volume: Volume, motion: Motion) -> list[int]:
    """Returns the number of voxels along (slices, rows, columns) that cover the largest movement of a voxel."""
    spacing_mm = np.array(volume.spacing_mm)[::-1]
    radius_mm = float(np.linalg.norm(spacing_mm * volume.array.shape)) / 2
    turns = np.linalg.norm(np.deg2rad(motion.degrees), axis=1)
    shifts_mm = np.linalg.norm(motion.translation_mm, axis=1)
    return np.ceil((turns * radius_mm + shifts_mm).max() / spacing_mm).astype(int).tolist()


def _affine(volume: Volume, padded_shape: tuple[int, ...]) -> np.ndarray:
    """Returns the RAS affine of (columns, slices, rows), whose origin is the middle: TorchIO 1.2 rotates about it."""
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, PHASE_LAST]
    slices, rows, columns = padded_shape
    affine[:3, 3] = -affine[:3, :3] @ (np.array([columns, slices, rows]) - 1) / 2
    return LPS_TO_RAS @ affine
