"""Reads where a slice lies from the text of its header, within bounds of what a scanner can make."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from medgan.data.dicom.geometry import Plane

FARTHEST_MM = 1e5  # from the origin of the patient's coordinates
SPACING_MM = (0.01, 100.0)
LONGEST = 16384  # rows or columns
NAMES = {
    "ImagePositionPatient": "Image Position (Patient)",
    "ImageOrientationPatient": "Image Orientation (Patient)",
    "PixelSpacing": "Pixel Spacing",
    "Rows": "Rows",
    "Columns": "Columns",
}


def plane_of(values: Mapping[str, str]) -> tuple[Plane | None, list[str]]:
    """Returns the plane of a slice; or None and its faults, such as "a Pixel Spacing of 1e-06 mm (0.01 to 100)".

    Args:
        values: the text of the attributes by keyword; a missing one is no fault of its value.
    """
    position = floats(values.get("ImagePositionPatient", ""))
    orientation = floats(values.get("ImageOrientationPatient", ""))
    spacing = floats(values.get("PixelSpacing", ""))
    size = [_count(values.get(keyword, "")) for keyword in ("Rows", "Columns")]
    valid = {
        "ImagePositionPatient": len(position) == 3 and bool(np.isfinite(position).all()),
        "ImageOrientationPatient": _orthonormal(orientation),
        "PixelSpacing": len(spacing) == 2 and all(np.isfinite(value) and value > 0 for value in spacing),
        "Rows": size[0] > 0,
        "Columns": size[1] > 0,
    }
    faults = [f"an invalid {NAMES[keyword]}" for keyword, holds in valid.items() if not holds and values.get(keyword)]
    if all(valid.values()):
        faults = _beyond(position, spacing, size)
        if not faults:
            return Plane(position, orientation, spacing, (size[0], size[1])), []
    return None, faults


def _beyond(position: tuple[float, ...], spacing: tuple[float, ...], size: list[int]) -> list[str]:
    lowest, highest = SPACING_MM
    faults = []
    if odd := [value for value in spacing if not lowest <= value <= highest]:
        faults.append(f"a Pixel Spacing of {odd[0]:g} mm ({lowest:g} to {highest:g})")
    if (far := max(position, key=abs)) and abs(far) > FARTHEST_MM:
        faults.append(f"an Image Position (Patient) of {far:g} mm (at most {FARTHEST_MM:g})")
    if max(size) > LONGEST:
        faults.append(f"{size[0]} Rows and {size[1]} Columns (at most {LONGEST})")
    return faults


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


@lru_cache(maxsize=4096)
def floats(text: str) -> tuple[float, ...]:
    """Returns the numbers of a Decimal String, or none if one of them is no number."""
    try:
        return tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()


@lru_cache
def _orthonormal(orientation: tuple[float, ...]) -> bool:
    if len(orientation) != 6:
        return False
    axes = np.reshape(orientation, (2, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.allclose(axes @ axes.T, np.eye(2), atol=0.02))
