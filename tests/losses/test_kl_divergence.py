import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from medgan.losses.kl_divergence import kl_loss

pytestmark = pytest.mark.unit


def drawn():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, 6, generator=draw, dtype=torch.float64).unbind()


def test_kl_loss_is_mean_divergence_of_normal_distributions():
    mean, log_variance = drawn()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_loss(mean, log_variance), expected)


def test_kl_loss_equals_value_worked_by_hand():
    mean, log_variance = torch.tensor([1.0, 0.0]), torch.tensor([0.0, math.log(4)])
    # (1 + 1 - 0 - 1) / 2 and (0 + 4 - ln 4 - 1) / 2
    assert float(kl_loss(mean, log_variance)) == pytest.approx((0.5 + (3 - math.log(4)) / 2) / 2)


def test_kl_loss_is_zero_at_standard_normal_only():
    zero = torch.zeros(2, 3, 4, 4)
    assert kl_loss(zero, zero) == 0
    for one, other in zip(*drawn(), strict=True):
        assert kl_loss(one, other) > 0


def test_kl_loss_gradient_pulls_towards_standard_normal():
    mean, log_variance = torch.tensor([2.0, -1.0], requires_grad=True), torch.tensor([1.0, -1.0], requires_grad=True)
    kl_loss(mean, log_variance).backward()
    torch.testing.assert_close(mean.grad, mean.detach() / 2)
    torch.testing.assert_close(log_variance.grad, (log_variance.detach().exp() - 1) / 4)
