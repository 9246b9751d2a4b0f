"""Past outputs, shown to the discriminator again (Shrivastava et al., 2017; Zhu et al., CycleGAN, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor


class Pool:
    """Keeps up to `size` (source, output) pairs; with size 0 every pair passes through.

    It is not part of a checkpoint: a training that goes on fills it anew.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[tuple[Tensor, Tensor]] = []

    def exchange(self, source: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the same size: each pair is new, or, with probability 1/2, an older one that it replaces.

        Args:
            source: (B, C, H, W).
            output: (B, C', H, W), detached.
        """
        if self.size == 0:
            return source, output
        pairs = [self._exchange_one(pair) for pair in zip(source, output, strict=True)]
        sources, outputs = zip(*pairs, strict=True)
        return torch.stack(sources), torch.stack(outputs)

    def _exchange_one(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if len(self.kept) < self.size:
            self.kept.append(_own(pair))
            return pair
        if torch.rand(()) < 0.5:
            return pair
        place = int(torch.randint(self.size, ()))
        old, self.kept[place] = self.kept[place], _own(pair)
        return old


def _own(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A copy: a view would keep its whole batch."""
    return pair[0].clone(), pair[1].clone()
