import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from medgan.losses.adversarial import ADVERSARIAL, gradient_penalty

pytestmark = pytest.mark.unit

LOGITS = torch.tensor([[-3.0, -0.5], [0.0, 4.0]]).view(2, 1, 1, 2)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("vanilla", binary_cross_entropy_with_logits), ("lsgan", lambda logits, labels: mse_loss(logits, labels) / 2)],
)
def test_adversarial_objective_equals_published_form(name, reference):
    objective = ADVERSARIAL[name]
    real, fake = torch.ones_like(LOGITS), torch.zeros_like(LOGITS)
    torch.testing.assert_close(objective.real(LOGITS), reference(LOGITS, real))
    torch.testing.assert_close(objective.fake(LOGITS), reference(LOGITS, fake))
    torch.testing.assert_close(objective.fool(LOGITS), reference(LOGITS, real))


def test_hinge_equals_values_worked_by_hand():
    hinge = ADVERSARIAL["hinge"]
    # logits -3, -0.5, 0, 4: max(0, 1 - D) = 4, 1.5, 1, 0 and max(0, 1 + D) = 0, 0.5, 1, 5
    assert float(hinge.real(LOGITS)) == pytest.approx((4 + 1.5 + 1 + 0) / 4)
    assert float(hinge.fake(LOGITS)) == pytest.approx((0 + 0.5 + 1 + 5) / 4)
    assert float(hinge.fool(LOGITS)) == pytest.approx(-(-3 - 0.5 + 0 + 4) / 4)


def test_hinge_gives_no_gradient_beyond_margin():
    logits = torch.tensor([-2.0, 2.0], requires_grad=True)
    (ADVERSARIAL["hinge"].real(logits[1]) + ADVERSARIAL["hinge"].fake(logits[0])).backward()
    assert logits.grad.tolist() == [0, 0]


def test_wasserstein_is_difference_of_critic_means():
    critic, other = ADVERSARIAL["wasserstein"], LOGITS + 2.0
    assert float(critic.real(other) + critic.fake(LOGITS)) == pytest.approx(-2.0)
    assert critic.fool(LOGITS) == -critic.fake(LOGITS)


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
class TestAdversarialObjectives:
    def test_objective_returns_scalar_mean(self, name):
        for function in ADVERSARIAL[name]:
            assert function(LOGITS).shape == ()
            torch.testing.assert_close(function(LOGITS), function(LOGITS.repeat(3, 1, 2, 1)))

    def test_objective_rewards_correct_discriminator(self, name):
        high, low = torch.full((4,), 0.9), torch.full((4,), 0.1)
        assert ADVERSARIAL[name].real(high) < ADVERSARIAL[name].real(low)
        assert ADVERSARIAL[name].fake(low) < ADVERSARIAL[name].fake(high)

    def test_objective_pulls_generator_towards_real_logits(self, name):
        logits = torch.full((4,), -5.0, requires_grad=True)
        ADVERSARIAL[name].fool(logits).backward()
        assert (logits.grad < -0.01).all(), "the gradient must not vanish when the discriminator is sure"

    def test_objective_stays_finite_for_extreme_logits(self, name):
        extreme = torch.tensor([-1e4, 1e4])
        assert all(function(extreme).isfinite() for function in ADVERSARIAL[name])


class TestGradientPenalty:
    """Critics of known slope: c * (sum of the pixels) / sqrt(number of pixels) has slope c everywhere."""

    target, output = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()

    @pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (-1.0, 0.0), (3.0, 4.0), (0.25, 0.75**2)])
    def test_gradient_penalty_is_squared_distance_of_slope_from_one(self, slope, expected):
        def critic(image):
            return slope * image.sum(dim=(1, 2, 3), keepdim=True) / 16**0.5

        assert float(gradient_penalty(critic, self.target, self.output)) == pytest.approx(expected, abs=1e-12)

    def test_gradient_penalty_of_patch_critic_uses_mean_of_patches(self):
        def critic(image):
            return 3.0 * image  # 16 patches, each of slope 3: their mean has slope 3 / 16 in 16 directions

        assert float(gradient_penalty(critic, self.target, self.output)) == pytest.approx((3 / 4 - 1) ** 2)

    def test_gradient_penalty_uses_slope_of_each_image(self):
        slopes = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).view(3, 1, 1, 1)
        penalty = gradient_penalty(
            lambda image: slopes * image.sum(dim=(1, 2, 3), keepdim=True) / 4, self.target, self.output
        )
        assert float(penalty) == pytest.approx((0 + 1 + 9) / 3)

    def test_gradient_penalty_carries_gradient_to_critic_parameters(self):
        slope = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        gradient_penalty(
            lambda image: slope * image.sum(dim=(1, 2, 3), keepdim=True) / 4, self.target, self.output
        ).backward()
        assert float(slope.grad) == pytest.approx(2 * (3 - 1))  # d/dc (c - 1)^2

    def test_gradient_penalty_points_lie_between_target_and_output(self):
        seen = []

        def critic(image):
            seen.append(image.detach())
            return image

        torch.manual_seed(0)
        for _ in range(20):
            gradient_penalty(critic, self.target, self.output)
        places = (torch.stack(seen) - self.output) / (self.target - self.output)  # (20, B, C, H, W)
        place = places[..., :1, :1, :1]
        torch.testing.assert_close(places, place.expand_as(places))
        assert 0 <= float(place.min()) < 0.2
        assert 0.8 < float(place.max()) <= 1
        assert place.unique().numel() == 20 * 3
