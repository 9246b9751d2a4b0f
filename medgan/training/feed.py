"""Feeds batches to a training: from the memory of the device where all slices fit into it, else from the disk."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medgan.data.dataset import Batches, Slices, Unpaired

Pair = tuple[Tensor, Tensor]
SHARE = 0.25
"""Limits the share of a GPU's free memory that the training slices may take."""


class Feed:
    """Yields augmented batches on the device, without end.

    Args:
        augment: maps (source, target) to an augmented pair, each (B, C, H, W), on the device.
        stored: all slices on the device, see `stored_on`; with None, slices are read when a batch needs them.

    Attributes:
        waited_s: seconds that the training has waited for batches.
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
    """Returns all slices on a GPU, (N, C, H, W) each, or None where they take more than `SHARE` of its free memory.

    On a CPU it returns None: reading a batch takes well below a hundredth of a step there.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return stacked(slices, device) if bytes_of(slices) <= SHARE * free else None


def stacked(slices: Slices | Unpaired, device: torch.device) -> Pair:
    """Returns all sources and all targets, (N, C, H, W) each."""
    pairs = [slices[index] for index in range(len(slices))]
    return torch.stack([pair[0] for pair in pairs]).to(device), torch.stack([pair[1] for pair in pairs]).to(device)


def bytes_of(slices: Slices | Unpaired) -> int:
    """Returns the bytes of all sources and targets in float32."""
    return len(slices) * sum(image.nbytes for image in slices[0])
