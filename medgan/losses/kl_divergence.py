"""How far a latent distribution is from the one that is assumed beforehand (Kingma & Welling, 2014)."""

from __future__ import annotations

from torch import Tensor


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of N(mean, variance) from N(0, 1) in nats (appendix B), the mean over all numbers of the latent.

    Args:
        mean: of any shape.
        log_variance: the same shape.
    """
    return (mean.square() + log_variance.exp() - log_variance - 1).mean() / 2
