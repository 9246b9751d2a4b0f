"""Gives past outputs to the discriminator again (Shrivastava et al., 2017; Zhu et al., CycleGAN, section 4)."""

import torch
from torch import Tensor


class Pool:
    """Keeps up to `size` (source, output) pairs; with size 0 every pair passes through.

    A checkpoint does not contain the pool: a resumed training fills it anew.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[tuple[Tensor, Tensor]] = []

    def exchange(self, source: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a batch of the same size: each pair is new or, with probability 1/2, an older pair that it replaces.

        Args:
            source: sources (B, C, H, W).
            output: outputs (B, C', H, W), detached.
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
    """Returns a copy of the pair, because a view would keep its whole batch in memory."""
    return pair[0].clone(), pair[1].clone()
