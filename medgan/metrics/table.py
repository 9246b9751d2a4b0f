"""The metrics of a validation pass by name, with the direction that is better."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from medgan.metrics.image import mae, mse, psnr, ssim

DIRECTIONS = {"ssim": "max", "psnr": "max", "mse": "min", "mae": "min"}
"""First part of a metric's name -> which way is better."""


class Row(NamedTuple):
    """The metrics of one slice of one patient."""

    patient: str
    slice_number: int
    values: dict[str, float]


def direction(name: str) -> str:
    """ "max" or "min" for a metric such as `val/mae_hu_body`."""
    return DIRECTIONS[name.rsplit("/", 1)[-1].split("_")[0]]


def slice_metrics(
    output: Tensor, target: Tensor, mask: Tensor, *, window: tuple[float, float], unit: str
) -> dict[str, Tensor]:
    """Every metric of a batch, each (B,); SSIM, PSNR and MSE on values mapped to 0..255.

    Args:
        output: (B, 1, H, W) in [-1, 1].
        target: (B, 1, H, W) in [-1, 1].
        mask: (B, 1, H, W), true in the body.
        window: the physical values of -1 and 1.
        unit: their unit, lower case in the names: "HU" gives `mae_hu` and `mae_hu_body`.
    """
    grey, grey_target = (output + 1) * 127.5, (target + 1) * 127.5
    scale = (window[1] - window[0]) / 2
    name = f"mae_{unit.lower()}"
    return {
        "ssim": ssim(grey, grey_target, data_range=255.0),
        "psnr": psnr(grey, grey_target, data_range=255.0),
        "mse": mse(grey, grey_target),
        name: scale * mae(output, target),
        f"{name}_body": scale * mae(output, target, mask=mask),
    }


def patient_means(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Patient -> metric -> mean over the patient's slices; NaN (an empty mask) is left out."""
    collected: dict[str, dict[str, list[float]]] = {}
    for row in sorted(rows):
        for name, value in row.values.items():
            if value == value:
                collected.setdefault(row.patient, {}).setdefault(name, []).append(value)
    return {
        patient: {name: statistics.fmean(values) for name, values in means.items()}
        for patient, means in collected.items()
    }


def overall_means(patients: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metric -> mean over patients."""
    names = {name: None for means in patients.values() for name in means}
    return {name: statistics.fmean(means[name] for means in patients.values() if name in means) for name in names}
