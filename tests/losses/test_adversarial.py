import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from medgan.losses.adversarial import ADVERSARIAL

LOGITS = torch.tensor([[-3.0, -0.5], [0.0, 4.0]]).view(2, 1, 1, 2)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("vanilla", binary_cross_entropy_with_logits), ("lsgan", lambda logits, labels: mse_loss(logits, labels) / 2)],
)
def test_an_objective_is_its_published_form(name, reference):
    objective = ADVERSARIAL[name]
    real, fake = torch.ones_like(LOGITS), torch.zeros_like(LOGITS)
    torch.testing.assert_close(objective.real(LOGITS), reference(LOGITS, real))
    torch.testing.assert_close(objective.fake(LOGITS), reference(LOGITS, fake))
    torch.testing.assert_close(objective.fool(LOGITS), reference(LOGITS, real))


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
class TestEveryObjective:
    def test_returns_a_scalar_mean(self, name):
        for function in ADVERSARIAL[name]:
            assert function(LOGITS).shape == ()
            torch.testing.assert_close(function(LOGITS), function(LOGITS.repeat(3, 1, 2, 1)))

    def test_rewards_the_discriminator_for_being_right(self, name):
        high, low = torch.full((4,), 0.9), torch.full((4,), 0.1)
        assert ADVERSARIAL[name].real(high) < ADVERSARIAL[name].real(low)
        assert ADVERSARIAL[name].fake(low) < ADVERSARIAL[name].fake(high)

    def test_pulls_the_generator_towards_what_is_judged_real(self, name):
        logits = torch.full((4,), -5.0, requires_grad=True)
        ADVERSARIAL[name].fool(logits).backward()
        assert (logits.grad < -0.01).all(), "the gradient must not vanish where the discriminator is sure"

    def test_stays_finite_for_extreme_logits(self, name):
        extreme = torch.tensor([-1e4, 1e4])
        assert all(function(extreme).isfinite() for function in ADVERSARIAL[name])
