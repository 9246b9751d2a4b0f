import math

import numpy as np
import pytest
import torch
from refusal import refusal

from medgan.losses.batch_matching import BANDWIDTHS, feature_matching_loss, mmd_loss

pytestmark = pytest.mark.unit


def normal(count, *, mean=0.0, seed=0):
    """(count, 1, 2, 2) independent normal pixels."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 2, 2, generator=draw, dtype=torch.float64) + mean


class TestFeatureMatching:
    def test_feature_matching_compares_batch_means_and_sums_levels(self):
        output = [torch.tensor([1.0, 3.0, 5.0, -1.0]).view(2, 1, 1, 2), torch.tensor([2.0, 4.0]).view(2, 1, 1, 1)]
        target = [torch.tensor([0.0, 0.0, 2.0, 2.0]).view(2, 1, 1, 2), torch.tensor([1.0, 1.0]).view(2, 1, 1, 1)]
        # means over the batch: (3, 1) against (1, 1), and 3 against 1
        assert float(feature_matching_loss(output, target)) == pytest.approx((2**2 + 0) / 2 + 2**2)

    def test_feature_matching_of_equal_batches_is_zero_in_any_order(self):
        level = torch.rand(4, 3, 2, 2, dtype=torch.float64)
        assert feature_matching_loss([level], [level]) == 0
        assert float(feature_matching_loss([level], [level.flip(0)])) == pytest.approx(0, abs=1e-30)

    def test_feature_matching_ignores_order_of_both_batches(self):
        output, target = torch.rand(2, 4, 3, 2, 2, dtype=torch.float64).unbind()
        expected = feature_matching_loss([output], [target])
        torch.testing.assert_close(feature_matching_loss([output[[2, 0, 3, 1]]], [target]), expected)
        torch.testing.assert_close(feature_matching_loss([output], [target[[1, 3, 0, 2]]]), expected)

    def test_feature_matching_accepts_batches_of_different_size(self):
        output, target = torch.ones(1, 2, 3, 3), torch.zeros(5, 2, 3, 3)
        assert feature_matching_loss([output], [target]) == 1

    def test_feature_matching_refuses_different_number_of_levels(self):
        level = torch.zeros(1, 1, 2, 2)
        with pytest.raises(ValueError, match="argument 2 is longer"):
            feature_matching_loss([level], [level, level])


class TestMaximumMeanDiscrepancy:
    def test_mmd_of_two_pairs_equals_numpy(self):
        output, target = normal(2), normal(2, mean=0.5, seed=1)
        points = np.concatenate([output.numpy(), target.numpy()]).reshape(4, -1)
        squared = np.array([[np.mean((one - other) ** 2) for other in points] for one in points])
        scale = squared[~np.eye(4, dtype=bool)].mean()

        def kernel(one, other):
            return sum(math.exp(-squared[one, other] / (2 * width * scale)) for width in BANDWIDTHS)

        between = (kernel(0, 2) + kernel(0, 3) + kernel(1, 2) + kernel(1, 3)) / 4
        assert float(mmd_loss(output, target)) == pytest.approx(kernel(0, 1) + kernel(2, 3) - 2 * between, rel=1e-9)

    def test_mmd_of_equal_distributions_is_zero_in_expectation(self):
        values = torch.stack([mmd_loss(normal(6, seed=2 * seed), normal(6, seed=2 * seed + 1)) for seed in range(400)])
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean())) < 4 * error
        assert (values < 0).any(), "unbiased, hence negative at times"

    def test_mmd_grows_with_distance_of_distributions(self):
        values = [float(mmd_loss(normal(40), normal(40, mean=mean, seed=1))) for mean in (0.0, 0.5, 1.0, 2.0)]
        assert values[1] > 0
        assert values == sorted(values)

    def test_mmd_is_symmetric_and_ignores_order_of_batch(self):
        output, target = normal(5), normal(5, mean=1.0, seed=1)
        expected = mmd_loss(output, target)
        torch.testing.assert_close(mmd_loss(target, output), expected)
        torch.testing.assert_close(mmd_loss(output[[4, 2, 0, 1, 3]], target), expected)

    def test_mmd_is_independent_of_pixel_unit(self):
        output, target = normal(5), normal(5, mean=1.0, seed=1)
        torch.testing.assert_close(mmd_loss(100 * output, 100 * target), mmd_loss(output, target))

    def test_mmd_gradient_pulls_outputs_towards_targets(self):
        output, target = normal(8).requires_grad_(), normal(8, mean=1.5, seed=1)
        mmd_loss(output, target).backward()
        assert output.grad.sum() < 0

    def test_mmd_of_constant_images_has_finite_value_and_gradient(self):
        output = torch.zeros(3, 1, 4, 4, requires_grad=True)
        value = mmd_loss(output, torch.zeros(3, 1, 4, 4))
        value.backward()
        assert float(value.detach()) == pytest.approx(0, abs=1e-6)
        assert output.grad.isfinite().all()

    def test_mmd_refuses_batch_of_one(self):
        image = torch.zeros(1, 1, 4, 4)
        with pytest.raises(ValueError, check=refusal("E-LOSS-01", number="1")):
            mmd_loss(image, image)
