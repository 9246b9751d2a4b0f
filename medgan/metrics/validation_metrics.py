"""Computes the metrics of a validation pass by name, and names the better direction of each."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from medgan.errors import InputError
from medgan.metrics.pixel_errors import average, bias, mae, mse, psnr
from medgan.metrics.ssim import MS_SSIM_SIZE, ms_ssim, ssim_map, uqi_map
from medgan.metrics.vif import VIF_SIZE, vif
from medgan.tasks import ARBITRARY_UNIT, Image

DIRECTIONS = {
    "ssim": "max", "psnr": "max", "vif": "max", "uqi": "max", "ms_ssim": "max",
    "mse": "min", "lpips": "min", "mae": "min", "bias": "min",
}  # fmt: skip
"""This maps the first part of a metric's name to the better direction; for bias see `comparable`."""
GRAY = 255.0

Patients = dict[str, dict[str, float]]


class SliceMetrics(NamedTuple):
    """Holds the metrics of one slice of one patient."""

    patient: str
    slice_number: int
    values: dict[str, float]


def direction(name: str) -> str:
    """Returns "max" or "min", the better direction of a metric such as `val/mae_hu_body`.

    Raises:
        InputError: there is no metric of that name.
    """
    metric = name.rsplit("/", 1)[-1]
    for first, better in DIRECTIONS.items():
        if f"{metric}_".startswith(f"{first}_"):
            return better
    raise InputError("E-METRIC-02", directions=", ".join(DIRECTIONS), name=name)


def comparable(name: str, value: float) -> float:
    """Returns what counts of a metric's value in a comparison: the absolute value of a bias, the value of any other."""
    return abs(value) if name.rsplit("/", 1)[-1].startswith("bias") else value


def merit(name: str, value: float) -> float:
    """Returns a metric's value signed so that higher is better, see `comparable`; NaN stays NaN.

    Raises:
        InputError: there is no metric of that name.
    """
    return comparable(name, value) if direction(name) == "max" else -comparable(name, value)


def preference(name: str) -> str:
    """Returns in words which values of a metric are better, such as "lower is better"."""
    if comparable(name, -1.0) > 0:
        return "nearer to 0 is better"
    return "higher is better" if direction(name) == "max" else "lower is better"


def slice_metrics(
    output: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    image: Image,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Returns every metric of a batch, each (B,), over the whole slice and, as `<name>_body`, in the mask.

    Structural metrics and MSE use values mapped to 0..255. Errors are in the target's unit, also for each tissue that
    it defines; they are omitted if the unit is arbitrary. UQI uses whole gray levels and the Gaussian window of SSIM.
    vif is omitted below 41 pixels, and ms_ssim below 176.

    Args:
        output, target: (B, 1, H, W) in [-1, 1].
        mask: bool, (B, 1, H, W), true in the body; an empty mask gives NaN.
        image: kind of the target image; its window holds the physical values of -1 and 1.
        perceptual: `lpips`, maps (output, target) in [-1, 1] to (B,); None: not computed.
    """
    values = _gray_metrics(_gray(output), _gray(target), mask)
    if perceptual is not None:
        values["lpips"] = perceptual(output, target)
        inside = perceptual(output.where(mask, -1.0), target.where(mask, -1.0))
        values["lpips_body"] = inside.where(mask.any(dim=(1, 2, 3)), torch.nan)
    if image.unit != ARBITRARY_UNIT:
        values |= _physical_metrics(_physical(output, image), _physical(target, image), mask, image)
    return values


def measured(image: Image, *, size: int, with_lpips: bool) -> list[str]:
    """Returns the names that `slice_metrics` gives for slices of `size` pixels, in alphabetical order."""
    slices = torch.zeros(1, 1, size, size)
    perceptual = (lambda output, target: torch.zeros(1)) if with_lpips else None
    return sorted(slice_metrics(slices, slices, slices == 0, image=image, perceptual=perceptual))


def _gray_metrics(output: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    similarity = ssim_map(output, target, data_range=GRAY)
    # UQI has no constants that damp noise: without rounding, black with noise of 0.001 would not count as black.
    quality = uqi_map(output.round(), target.round())
    side = min(target.shape[-2:])
    values = {}
    for suffix, region in (("", None), ("_body", mask)):
        values[f"ssim{suffix}"] = average(similarity, region)
        values[f"psnr{suffix}"] = psnr(output, target, data_range=GRAY, mask=region)
        values[f"mse{suffix}"] = mse(output, target, mask=region)
        values[f"uqi{suffix}"] = average(quality, region)
        if side >= VIF_SIZE:
            values[f"vif{suffix}"] = vif(output, target, data_range=GRAY, mask=region)
        if side >= MS_SSIM_SIZE:
            values[f"ms_ssim{suffix}"] = ms_ssim(output, target, data_range=GRAY, mask=region)
    return values


def _physical_metrics(output: Tensor, target: Tensor, mask: Tensor, image: Image) -> dict[str, Tensor]:
    unit, values = image.unit.lower(), {}
    for suffix, region in (("", None), ("_body", mask)):
        values[f"mae_{unit}{suffix}"] = mae(output, target, mask=region)
        values[f"bias_{unit}{suffix}"] = bias(output, target, mask=region)
    for tissue, (low, high) in image.tissues.items():
        inside = mask & (target >= low) & (target < high)
        values[f"mae_{unit}_{tissue}"] = mae(output, target, mask=inside)
    return values


def _gray(values: Tensor) -> Tensor:
    # Convolutions in float64 are ten times slower on a CPU; in float32 on a GPU they keep ten bits (TF32) of a square.
    precision = torch.float32 if values.device.type == "cpu" else torch.float64
    return (values.to(precision) + 1) * GRAY / 2


def _physical(values: Tensor, image: Image) -> Tensor:
    assert image.window is not None, "a physical unit has a window"
    low, high = image.window
    return low + (values.double() + 1) * (high - low) / 2


def error_text(values: Mapping[str, float]) -> str:
    """Returns the mean absolute error of an epoch as text, such as "MAE 85.2 HU"; empty for arbitrary units."""
    named = {f"val/mae_{unit.lower()}": unit for unit in ("HU", "SUV")}
    return next((f"MAE {values[name]:.4g} {unit}" for name, unit in named.items() if name in values), "")


def patient_means(rows: Iterable[SliceMetrics]) -> Patients:
    """Returns the mean over the slices by patient and metric, without NaN values (empty masks)."""
    collected: dict[str, dict[str, list[float]]] = {}
    for row in sorted(rows):
        for name, value in row.values.items():
            if value == value:
                collected.setdefault(row.patient, {}).setdefault(name, []).append(value)
    return {
        patient: {name: statistics.fmean(values) for name, values in means.items()}
        for patient, means in collected.items()
    }


def overall_means(patients: Patients) -> dict[str, float]:
    """Returns the mean of each metric over the patients that have it."""
    return {name: statistics.fmean(values) for name, values in _by_metric(patients).items()}


def overall_spread(patients: Patients) -> dict[str, float]:
    """Returns the sample standard deviation of each metric over the patients that have it; 0 for one patient."""
    return {name: statistics.stdev(values) if len(values) > 1 else 0.0 for name, values in _by_metric(patients).items()}


def _by_metric(patients: Patients) -> dict[str, list[float]]:
    collected: dict[str, list[float]] = {}
    for means in patients.values():
        for name, value in means.items():
            collected.setdefault(name, []).append(value)
    return collected
