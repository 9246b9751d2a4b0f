"""Adversarial objectives as triples of functions of the discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


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

HINGE = Adversarial(
    real=lambda logits: relu(1 - logits).mean(),
    fake=lambda logits: relu(1 + logits).mean(),
    fool=lambda logits: -logits.mean(),
)
"""Lim & Ye (2017), Miyato et al. (2018): a margin of 1."""

WASSERSTEIN = Adversarial(
    real=lambda logits: -logits.mean(),
    fake=lambda logits: logits.mean(),
    fool=lambda logits: -logits.mean(),
)
"""Arjovsky et al. (2017): a critic, to be kept Lipschitz by `optim.clip_weights` or by `gradient_penalty`."""

BEGAN = WASSERSTEIN
"""Berthelot et al. (2017): the judgement is minus an autoencoder's error; `build.objective` counts fakes k times."""

ADVERSARIAL = {"vanilla": VANILLA, "lsgan": LSGAN, "hinge": HINGE, "wasserstein": WASSERSTEIN, "began": BEGAN}


def gradient_penalty(judge: Callable[[Tensor], Tensor], target: Tensor, output: Tensor) -> Tensor:
    """E[(|grad of the judgement| - 1)^2] at random points between target and output (Gulrajani et al., 2017, eq. 3).

    Args:
        judge: (B, C, H, W) -> logits; differentiable twice.
        target: (B, C, H, W).
        output: the same shape, detached.
    """
    share = torch.rand(len(target), 1, 1, 1, device=target.device, dtype=target.dtype)
    between = torch.lerp(output, target, share).requires_grad_()
    logits = judge(between).mean(dim=(1, 2, 3))  # one judgement an image, however many patches
    (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
