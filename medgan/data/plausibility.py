"""Checks whether voxels can be what their modality says."""

import numpy as np

from medgan.errors import InputError

CT_MEDIANS_HU = (-2000.0, 3000.0)
CT_LEAST_RANGE_HU = 100.0
CT_LOWEST_HU = -32768.0
PET_HIGHEST_SUV = 1e4


def check_values(array: np.ndarray, modality: str) -> None:
    """Refuses voxels that no scanner makes.

    Args:
        array: (slices, rows, columns) in HU (CT), SUV (PT) or arbitrary units (anything else).
        modality: DICOM Modality (0008,0060).

    Raises:
        InputError: values are not finite, all the same, or far outside what the modality's unit allows.
    """
    num_wrong = array.size - np.count_nonzero(np.isfinite(array))
    if num_wrong:
        raise InputError("E-PLAUSIBLE-01", modality=modality, num_wrong=num_wrong, array_size=array.size)
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise InputError("E-PLAUSIBLE-02", modality=modality, low=low)
    if modality == "CT":
        _check_ct(array, low, high)
    if modality == "PT":
        _check_pet(array, high)


def _check_ct(array: np.ndarray, low: float, high: float) -> None:
    lowest, highest = CT_MEDIANS_HU
    plausible = lowest <= low <= high <= highest or lowest <= np.median(array) <= highest
    if not CT_LOWEST_HU <= low < 0 or high - low < CT_LEAST_RANGE_HU or not plausible:
        raise InputError("E-PLAUSIBLE-03", low=low, high=high, median=np.median(array))


def _check_pet(array: np.ndarray, high: float) -> None:
    mean = float(array.mean(dtype=np.float64))
    if mean < 0 or high > PET_HIGHEST_SUV:
        raise InputError("E-PLAUSIBLE-04", pet_highest_suv=PET_HIGHEST_SUV, mean=mean, high=high)
