"""Simulates a PET of less activity or time by thinning its counts in the sinogram."""

import numpy as np
from skimage.transform import iradon, radon

from medgan.data.volume import Volume
from medgan.errors import InputError

NUM_ANGLES = 180
FILTER = "hann"  # as soft as clinical reconstructions; a bare ramp filter gives noise that no scanner's image has


def simulate_low_dose(
    volume: Volume, *, total_counts: float, dose_fraction: float, random: np.random.Generator
) -> Volume:
    """Returns the PET at a fraction of its dose: the same image with more noise.

    Each slice is projected and scaled to N counts, of which a share is kept: Binomial(N, f) / f. Only the change is
    reconstructed by filtered back-projection and added to the slice, so that the projection does not blur the image.
    The noise has the variance (1/f - 1) N in every bin of the sinogram, and the texture of a back-projection.

    The model is 2D parallel-beam geometry without attenuation, scatter, randoms, detector response or time of flight.
    Inside large bodies, its noise is therefore weaker, and has fewer streaks, than on a scanner. Negative values are
    set to 0: the mean rises where there is little activity. Negative input values are projected as 0.

    Args:
        volume: PET at full dose, in SUV.
        total_counts: coincidences of the full dose in the mean slice. SUV images hold no counts, so this is a setting;
            a clinical FDG scan has about a million.
        dose_fraction: in (0, 1].
        random: generator that draws the counts; the same state gives the same image.

    Returns:
        float32 on the same grid, at least 0; `volume` itself where `dose_fraction` is 1.

    Raises:
        InputError: a setting is outside its range, or the volume holds no value above 0.
    """
    _check(volume, total_counts, dose_fraction)
    if dose_fraction == 1:
        return volume
    total_suv = volume.array.clip(0).sum(dtype=np.float64)
    angles = np.linspace(0, 180, NUM_ANGLES, endpoint=False)
    # every angle sees the whole slice, so that a slice's counts are known before it is projected
    counts_per_suv = total_counts * len(volume.array) / (NUM_ANGLES * total_suv)
    array = np.empty_like(volume.array)
    for index, image in enumerate(volume.array):
        sinogram = radon(image.clip(0).astype(np.float64), angles, circle=False)
        counts = np.rint(sinogram * counts_per_suv).astype(np.int64)
        change = random.binomial(counts, dose_fraction) / dose_fraction - counts
        array[index] = (image + _reconstructed(change / counts_per_suv, angles, image.shape)).clip(0)
    return volume.with_array(array)


def _check(volume: Volume, total_counts: float, dose_fraction: float) -> None:
    if not 0 < dose_fraction <= 1:
        raise InputError("E-SIMULATE-01", dose_fraction=dose_fraction)
    if not (np.isfinite(total_counts) and total_counts > 0):
        raise InputError("E-SIMULATE-02", total_counts=total_counts)
    if volume.array.max() <= 0:
        raise InputError("E-SIMULATE-03", highest=volume.array.max(), unit=volume.unit)


def _reconstructed(sinogram: np.ndarray, angles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the filtered back-projection, (rows, columns); `radon` had padded to a square about the middle pixel."""
    size = max(shape)
    square = iradon(sinogram, angles, output_size=size, filter_name=FILTER, circle=False)
    top, left = (size // 2 - count // 2 for count in shape)
    return square[top : top + shape[0], left : left + shape[1]]
