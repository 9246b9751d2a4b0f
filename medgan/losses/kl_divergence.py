"""Computes the divergence of a latent distribution from its prior (Kingma & Welling, 2014)."""

from torch import Tensor


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the divergence of N(mean, variance) from N(0, 1) in nats (appendix B), averaged over the latent.

    Args:
        mean, log_variance: tensors of any shape, the same for both.
    """
    return (mean.square() + log_variance.exp() - log_variance - 1).mean() / 2
