"""Validates a generator: every slice once, over all ranks, in physical units."""

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
"""Maps (output, target), each (B, 1, H, W) in [-1, 1], to LPIPS (B,)."""
SAME = 1e-6
"""Limits the difference, in [-1, 1], below which outputs count as the same image."""
SATURATED = 0.999
"""Limits the values, in [-1, 1], that are not saturated; beyond it, tanh passes no gradient back."""


@torch.no_grad()
def evaluate(
    generator: nn.Module,
    slices: Slices,
    runtime: Runtime,
    *,
    perceptual: Perceptual | None = None,
    batch_size: int = 16,
) -> list[SliceMetrics]:
    """Returns the metrics of every slice, the same list on every rank; with LPIPS where `perceptual` computes it.

    Raises:
        Diverged: an output is not finite, or all outputs are the same, or all are only black and white.
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
    shares = runtime.mean({"finite": finite, "constant": constant, "saturated": saturated})
    if shares["finite"] < 1:
        raise Diverged("E-TRAIN-03", num_slices=len(slices))
    if shares["constant"] == 1 and len(slices) > runtime.size:
        raise Diverged("E-TRAIN-04", num_slices=len(slices))
    if shares["saturated"] == 1 and len(slices) > runtime.size:
        raise Diverged("E-TRAIN-05", num_slices=len(slices))
    return runtime.gather(rows)


def evaluate_image(
    image: Tensor, slices: Slices, *, perceptual: Perceptual | None = None, batch_size: int = 64
) -> list[SliceMetrics]:
    """Returns the metrics of one constant image, (H, W) in [-1, 1], as the output of every slice."""
    rows = []
    for start in range(0, len(slices), batch_size):
        indices = range(start, min(start + batch_size, len(slices)))
        _, target, mask = _stack(slices, indices, torch.device("cpu"))
        rows += rows_of(slices, indices, image.expand_as(target), target, mask, perceptual)
    return rows


def rows_of(
    slices: Slices, indices: range, output: Tensor, target: Tensor, mask: Tensor, perceptual: Perceptual | None = None
) -> list[SliceMetrics]:
    """Returns the metrics of a batch, one row for each slice."""
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
    """Returns source, output and target of `count` slices spread evenly over the set, always the same slices.

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
