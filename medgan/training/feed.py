"""The batches of a training: from the device's own memory where all slices fit into it, else from the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medgan.data.dataset import Batches, Slices, Unpaired

Pair = tuple[Tensor, Tensor]
SHARE = 0.25
"""Of a GPU's free memory that the training slices may take."""


class Feed:
    """Augmented batches on the device, without end.

    Args:
        slices: of the training patients.
        sampler: which of them make a batch.
        device: where to.
        augment: (source, target) -> the same, each (B, C, H, W), on the device.
        stored: all slices on the device, see `stored_on`; none: they are read as they are needed.

    Attributes:
        waited_s: how long the training has waited for batches.
    """

    def __init__(
        self,
        slices: Slices | Unpaired,
        sampler: Batches,
        *,
        device: torch.device,
        augment: Callable[[Tensor, Tensor], Pair],
        stored: Pair | None = None,
    ) -> None:
        self.waited_s = 0.0
        self._device, self._augment = device, augment
        self._pairs = _indexed(stored, sampler) if stored else self._loaded(slices, sampler)

    def __iter__(self) -> Iterator[Pair]:
        return self

    def __next__(self) -> Pair:
        began = time.perf_counter()
        pair = self._augment(*next(self._pairs))
        self.waited_s += time.perf_counter() - began
        return pair

    def _loaded(self, slices: Slices | Unpaired, sampler: Batches) -> Iterator[Pair]:
        loader = DataLoader(slices, batch_sampler=sampler, pin_memory=self._device.type == "cuda")
        for source, target in loader:
            yield source.to(self._device, non_blocking=True), target.to(self._device, non_blocking=True)


def _indexed(stored: Pair, sampler: Batches) -> Iterator[Pair]:
    for indices in sampler:
        chosen = torch.tensor(indices, device=stored[0].device)
        yield stored[0][chosen], stored[1][chosen]


def stored_on(device: torch.device, slices: Slices | Unpaired) -> Pair | None:
    """All slices on a GPU, (N, C, H, W) each; none where they take more than a share of its free memory.

    On a CPU there is none either: reading a batch takes well below a hundredth of a step there.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return stacked(slices, device) if bytes_of(slices) <= SHARE * free else None


def stacked(slices: Slices | Unpaired, device: torch.device) -> Pair:
    """All sources and all targets, (N, C, H, W) each."""
    pairs = [slices[index] for index in range(len(slices))]
    return torch.stack([pair[0] for pair in pairs]).to(device), torch.stack([pair[1] for pair in pairs]).to(device)


def bytes_of(slices: Slices | Unpaired) -> int:
    """Of all sources and targets, in float32."""
    return len(slices) * sum(image.nbytes for image in slices[0])
