"""Defines adversarial losses as triples of functions of the discriminator's logits."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


class Adversarial(NamedTuple):
    """Holds an adversarial loss: the discriminator minimizes `real` and `fake`, the generator minimizes `fool`."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    fool: Callable[[Tensor], Tensor]


VANILLA = Adversarial(
    real=lambda logits: softplus(-logits).mean(),
    fake=lambda logits: softplus(logits).mean(),
    fool=lambda logits: softplus(-logits).mean(),
)
"""This is E[log D(x,y)] + E[log(1 - D(G(y),y))], non-saturating for the generator (Goodfellow et al., 2014)."""

LSGAN = Adversarial(
    real=lambda logits: ((logits - 1) ** 2).mean() / 2,
    fake=lambda logits: (logits**2).mean() / 2,
    fool=lambda logits: ((logits - 1) ** 2).mean() / 2,
)
"""This uses least squares with the labels 1 and 0 (Mao et al., 2017)."""

HINGE = Adversarial(
    real=lambda logits: relu(1 - logits).mean(),
    fake=lambda logits: relu(1 + logits).mean(),
    fool=lambda logits: -logits.mean(),
)
"""This uses a margin of 1 (Lim & Ye, 2017; Miyato et al., 2018)."""

WASSERSTEIN = Adversarial(
    real=lambda logits: -logits.mean(), fake=lambda logits: logits.mean(), fool=lambda logits: -logits.mean()
)
"""This needs a Lipschitz critic: set `optim.clip_weights` or use `gradient_penalty` (Arjovsky et al., 2017)."""

BEGAN = WASSERSTEIN
"""The logit is minus an autoencoder's error; `build_objective` weights fakes by k (Berthelot et al., 2017)."""

ADVERSARIAL = {"vanilla": VANILLA, "lsgan": LSGAN, "hinge": HINGE, "wasserstein": WASSERSTEIN, "began": BEGAN}


def gradient_penalty(critic: Callable[[Tensor], Tensor], target: Tensor, output: Tensor) -> Tensor:
    """Returns E[(|gradient of D| - 1)^2] at random points between target and output (Gulrajani et al., 2017, eq. 3).

    Args:
        critic: D, maps (B, C, H, W) to logits; it must be differentiable twice.
        target, output: (B, C, H, W), the output detached.
    """
    share = torch.rand(len(target), 1, 1, 1, device=target.device, dtype=target.dtype)
    between = torch.lerp(output, target, share).requires_grad_()
    logits = critic(between).mean(dim=(1, 2, 3))  # one value an image, for any number of patches
    (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
