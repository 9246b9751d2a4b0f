"""Adversarial objectives as triples of functions of the discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus


class Adversarial(NamedTuple):
    """`real` and `fake` are what the discriminator minimizes, `fool` what the generator minimizes."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    fool: Callable[[Tensor], Tensor]


VANILLA = Adversarial(
    real=lambda logits: softplus(-logits).mean(),
    fake=lambda logits: softplus(logits).mean(),
    fool=lambda logits: softplus(-logits).mean(),
)
"""Goodfellow et al. (2014): E[log D(x,y)] + E[log(1 - D(G(y),y))], the generator's part non-saturating."""

LSGAN = Adversarial(
    real=lambda logits: ((logits - 1) ** 2).mean() / 2,
    fake=lambda logits: (logits**2).mean() / 2,
    fool=lambda logits: ((logits - 1) ** 2).mean() / 2,
)
"""Mao et al. (2017): least squares, labels 1 and 0."""

ADVERSARIAL = {"vanilla": VANILLA, "lsgan": LSGAN}
