"""A validation pass: every slice once, over all ranks, in physical units."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from medgan.data.dataset import Slices
from medgan.data.intensity import from_network
from medgan.errors import Diverged
from medgan.metrics.validation_metrics import SliceMetrics, slice_metrics
from medgan.training.runtime import Runtime

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(output, target), each (B, 1, H, W) in [-1, 1] -> LPIPS (B,)."""
SAME = 1e-6
"""Outputs that differ by less anywhere, in [-1, 1], are one image."""
SATURATED = 0.999
"""Values beyond it, in [-1, 1], are at an end of the range, where tanh passes no gradient back."""


@torch.no_grad()
def evaluate(
    generator: nn.Module,
    slices: Slices,
    runtime: Runtime,
    *,
    perceptual: Perceptual | None = None,
    batch_size: int = 16,
) -> list[SliceMetrics]:
    """The metrics of every slice, the same list on every rank; with LPIPS where `perceptual` computes it.

    Raises:
        Diverged: an output is not finite, or all are the same whatever the source, or black and white alone.
    """
    mine = range(runtime.rank, len(slices), runtime.size)
    rows: list[SliceMetrics] = []
    finite, first, constant, saturated = 1.0, None, 1.0, 1.0
    was_training = generator.training
    generator.eval()
    for start in range(0, len(mine), batch_size):
        indices = mine[start : start + batch_size]
        source, target, mask = _stack(slices, indices, runtime.device)
        output = generator(source)
        finite = min(finite, float(output.isfinite().all()))
        first = output[:1].clone() if first is None else first
        constant = min(constant, float((output - first).abs().max() < SAME))
        saturated = min(saturated, float((output.abs() > SATURATED).float().mean() > SATURATED))
        rows += rows_of(slices, indices, output, target, mask, perceptual)
    generator.train(was_training)
    told = runtime.mean({"finite": finite, "constant": constant, "saturated": saturated})
    if told["finite"] < 1:
        raise Diverged("E-TRAIN-03")
    if told["constant"] == 1 and len(slices) > runtime.size:
        raise Diverged("E-TRAIN-04")
    if told["saturated"] == 1 and len(slices) > runtime.size:
        raise Diverged("E-TRAIN-05")
    return runtime.gather(rows)


def evaluate_image(
    image: Tensor, slices: Slices, *, perceptual: Perceptual | None = None, batch_size: int = 64
) -> list[SliceMetrics]:
    """The metrics of one constant image, (H, W) in [-1, 1], taken for the output of every slice."""
    rows = []
    for start in range(0, len(slices), batch_size):
        indices = range(start, min(start + batch_size, len(slices)))
        _, target, mask = _stack(slices, indices, torch.device("cpu"))
        rows += rows_of(slices, indices, image.expand_as(target), target, mask, perceptual)
    return rows


def rows_of(
    slices: Slices,
    indices: range,
    output: Tensor,
    target: Tensor,
    mask: Tensor,
    perceptual: Perceptual | None = None,
) -> list[SliceMetrics]:
    """The metrics of a batch as rows, one a slice."""
    values = slice_metrics(output, target, mask, image=slices.task.target, perceptual=perceptual)
    columns = {name: column.tolist() for name, column in values.items()}
    return [
        SliceMetrics(
            slices.patients[index], slices.slice_numbers[index], {name: columns[name][place] for name in columns}
        )
        for place, index in enumerate(indices)
    ]


@torch.no_grad()
def fixed_pictures(
    generator: nn.Module, slices: Slices, device: torch.device, *, count: int = 4
) -> dict[str, np.ndarray]:
    """Source, output and target of `count` slices spread over the set, always the same ones.

    Returns:
        source (count, H, W) in [-1, 1]; output and target (count, H, W) in the target's unit; titles (count,).
    """
    indices = sorted({round(place) for place in np.linspace(0, len(slices) - 1, 2 * count + 1)[1::2]})
    source, target, _ = _stack(slices, indices, device)
    was_training = generator.training
    generator.eval()
    output = generator(source)
    generator.train(was_training)
    return {
        "source": source[:, 0].cpu().numpy(),
        "output": from_network(output[:, 0].cpu().numpy(), slices.target_window),
        "target": from_network(target[:, 0].cpu().numpy(), slices.target_window),
        "titles": np.array(
            [f"patient {slices.patients[index]} slice {slices.slice_numbers[index]}" for index in indices]
        ),
    }


def _stack(slices: Slices, indices: range | list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    pairs = [slices[index] for index in indices]
    source = torch.stack([pair[0] for pair in pairs]).to(device)
    target = torch.stack([pair[1] for pair in pairs]).to(device)
    return source, target, torch.stack([slices.mask(index) for index in indices]).to(device)
