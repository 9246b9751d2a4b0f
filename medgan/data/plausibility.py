"""Holds the bounds within which a patient's numbers are plausible, and checks images against them."""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, Field
from scipy import ndimage

from medgan.data.dicom.geometry import Plane
from medgan.data.nuclides import NUCLIDES, Nuclide, Range
from medgan.errors import InputError

AIR_HU = -1000.0
PADDING_HU = -1500.0  # no tissue and no gas is below: what is, pads the image outside of the scanner's circle
LOWEST_HU, HIGHEST_MEDIAN_HU, LEAST_RANGE_HU = -32768.0, 3000.0, 100.0
LEAST_AIR_SHARE = 0.02  # of the pixels: less air says nothing of its value
HIGHEST_SUV = 1e4
BONE_HU = 300.0


class Bounds(BaseModel, frozen=True, extra="forbid"):
    """Holds the lowest and highest plausible value of what a patient's numbers depend on."""

    median_suv: Range = Field((0.22, 1.9), description="median in the body")
    head_median_suv: Range = Field((0.75, 7.0), description="likewise, of a head alone, whose brain takes up much FDG")
    head_bone_share: float = Field(0.14, ge=0, le=1, description="share of the body above 300 HU that makes it a head")
    air_hu: Range = Field((-1100.0, -850.0), description="median outside the body")
    soft_tissue_hu: Range = Field((-160.0, 160.0), description="median inside the body")
    body_share: Range = Field((0.002, 0.95), description="share of the pixels that are body")
    weight_kg: Range = Field((1.0, 300.0), description="Patient's Weight")
    step_per_thickness: Range = Field((0.22, 4.0), description="distance between slices by Slice Thickness")
    field_mm: Range = Field((20.0, 1000.0), description="length of a side of the image")
    same_size: Range = Field((0.4, 2.5), description="area of the body's sections in the source by that in the target")
    mirrored: float = Field(1.6, gt=0, description="most information when one is mirrored, by that as they are")
    nuclides: Mapping[str, Nuclide] = Field(NUCLIDES, description="half-life, dose and time since injection")


BOUNDS = Bounds()


def check_values(array: np.ndarray, modality: str, made_of: str = "") -> None:
    """Refuses voxels that no scanner makes.

    Args:
        array: (slices, rows, columns) in HU (CT), SUV (PT) or arbitrary units (anything else).
        modality: DICOM Modality (0008,0060).
        made_of: the header's values that these are made of, for the message.

    Raises:
        InputError: values are not finite, all the same, or far outside what the modality's unit allows.
    """
    num_wrong = array.size - np.count_nonzero(np.isfinite(array))
    if num_wrong:
        raise InputError("E-PLAUSIBLE-01", modality=modality, num_wrong=num_wrong, array_size=array.size)
    low, high = float(array.min()), float(array.max())
    made = f" Made of: {made_of}." if made_of else ""
    if low == high:
        raise InputError("E-PLAUSIBLE-02", modality=modality, low=low)
    if modality == "CT":
        _check_ct(array, low, high, made)
    if modality == "PT":
        mean = float(array.mean(dtype=np.float64))
        if mean < 0 or high > HIGHEST_SUV:
            raise InputError("E-PLAUSIBLE-04", pet_highest_suv=HIGHEST_SUV, mean=mean, high=high, made=made)


def _check_ct(array: np.ndarray, low: float, high: float, made: str) -> None:
    in_range = LOWEST_HU <= low < 0 <= high and high - low >= LEAST_RANGE_HU
    if in_range and high <= HIGHEST_MEDIAN_HU:
        return
    body = array[array >= PADDING_HU]
    median = float(np.median(body)) if body.size else low
    if not in_range or median > HIGHEST_MEDIAN_HU:
        raise InputError("E-PLAUSIBLE-03", low=low, high=high, median=median, made=made)


def check_step(step_mm: float, thickness_mm: float, modality: str, bounds: Bounds) -> None:
    """Refuses slices whose distance does not go with Slice Thickness (0018,0050); 0 mm: it is not known.

    Raises:
        InputError: one of the two is several times the other, so that the positions or the thickness are wrong.
    """
    low, high = bounds.step_per_thickness
    if thickness_mm and not low <= step_mm / thickness_mm <= high:
        raise InputError(
            "E-PLAUSIBLE-05", modality=modality, step_mm=step_mm, thickness_mm=thickness_mm, low=low, high=high
        )


def check_field(plane: Plane, modality: str, bounds: Bounds) -> None:
    """Refuses an image that is too wide or too narrow, so that its pixel spacing is wrong.

    Raises:
        InputError: the length of a side is beyond its bounds.
    """
    for length, step in zip(plane.size, plane.pixel_spacing, strict=True):
        if _beyond(length * step, bounds.field_mm):
            low, high = bounds.field_mm
            raise InputError("E-PLAUSIBLE-10", modality=modality, value=length * step, low=low, high=high)


def check_body(
    values: np.ndarray, mask: np.ndarray, modality: str, bounds: Bounds, made_of: str, *, head: bool
) -> None:
    """Refuses an image whose body, or the air around it, has values that no patient has.

    Args:
        values: (slices, rows, columns) in the modality's unit.
        mask: bool, of the same shape: the body.
        head: whether the header says that it is a head alone.

    Raises:
        InputError: a share or a median is beyond its bounds. The message holds it, the bounds, and the likely cause.
    """
    share, (low, high) = float(np.count_nonzero(mask)) / mask.size, bounds.body_share
    if _beyond(share, bounds.body_share):
        raise InputError("E-PLAUSIBLE-06", modality=modality, made_of=made_of, value=share, low=low, high=high)
    if modality == "PT":
        check_uptake(values[mask], bounds, made_of, head=head)
    if modality == "CT":
        _check_hu(values, mask, bounds, made_of)


def _check_hu(values: np.ndarray, mask: np.ndarray, bounds: Bounds, made_of: str) -> None:
    median, (low, high) = float(np.median(values[mask])), bounds.soft_tissue_hu
    if _beyond(median, bounds.soft_tissue_hu):
        raise InputError("E-PLAUSIBLE-08", made_of=made_of, value=median, low=low, high=high)
    outside = values[~mask]
    if outside.size <= LEAST_AIR_SHARE * mask.size:
        return
    median, (low, high) = float(np.median(outside)), bounds.air_hu
    if _beyond(median, bounds.air_hu):
        raise InputError("E-PLAUSIBLE-09", made_of=made_of, value=median, low=low, high=high)


def is_head(hu: np.ndarray, bounds: Bounds) -> bool:
    """Returns whether the body's voxels in a CT are those of a head: no other part has so much bone.

    On 38 patients' trunks and limbs 1 to 10 % of the body was above 300 HU; of a head it is about 20 %.
    """
    return float(np.mean(hu > BONE_HU)) >= bounds.head_bone_share


def check_uptake(suv: np.ndarray, bounds: Bounds, made_of: str, *, head: bool) -> None:
    """Refuses a PET whose median in the body no patient has, so that its unit, or a value in its header, is wrong.

    Args:
        suv: the voxels of the body, in any shape.
        head: whether it is a head alone.

    Raises:
        InputError: the median is beyond its bounds.
    """
    median = float(np.median(suv))
    hint = _suv_hint(median, float(suv.max()))
    name = "head_median_suv" if head else "median_suv"
    low, high = getattr(bounds, name)
    if _beyond(median, (low, high)):
        raise InputError("E-PLAUSIBLE-07", value=median, low=low, high=high, hint=hint, made_of=made_of, name=name)


def _beyond(value: float, bounds: Range) -> bool:
    return not bounds[0] <= value <= bounds[1]


def _suv_hint(median: float, highest: float) -> str:
    if highest <= 1.0:
        return "; perhaps the image was scaled to 0..1"
    return "; perhaps its unit is kBq/mL or Bq/mL" if median > 1 else ""


def without_padding(image: np.ndarray, padding: np.ndarray, background: float) -> np.ndarray:
    """Returns a slice with the background in place of padding.

    What is not darker than the background is padding only where it is connected to the border of the slice, so that
    tissue of the same value stays.

    Args:
        image: (rows, columns) in the modality's unit.
        padding: bool, of the same shape.
    """
    if not padding.any():
        return image
    if image[padding].max() > background:
        regions, _ = ndimage.label(padding)
        edges = [regions[0], regions[-1], regions[:, 0], regions[:, -1]]
        at_border = np.unique(np.concatenate(edges))
        padding = np.isin(regions, at_border[at_border > 0])
    return np.where(padding, np.float32(background), image)
