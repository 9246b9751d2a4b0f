import pytest
import torch
from refusal import refusal

from medgan.losses.perceptual import perceptual_loss

pytestmark = pytest.mark.unit


def test_perceptual_loss_sums_mean_absolute_differences_of_levels():
    output = [torch.tensor([[1.0, -1.0]]).view(1, 1, 1, 2), torch.tensor([[0.0, 2.0, 4.0]]).view(1, 3, 1, 1)]
    target = [torch.zeros(1, 1, 1, 2), torch.tensor([[0.0, 0.0, 0.0]]).view(1, 3, 1, 1)]
    assert float(perceptual_loss(output, target)) == pytest.approx((1 + 1) / 2 + (0 + 2 + 4) / 3)


def test_perceptual_loss_weights_each_level():
    output = [torch.tensor([[1.0, -1.0]]).view(1, 1, 1, 2), torch.tensor([[0.0, 2.0, 4.0]]).view(1, 3, 1, 1)]
    target = [torch.zeros(1, 1, 1, 2), torch.zeros(1, 3, 1, 1)]
    assert float(perceptual_loss(output, target, [5.0, 0.5])) == pytest.approx(5 * 1 + 0.5 * 2)
    assert perceptual_loss(output, target, [1.0, 1.0]) == perceptual_loss(output, target)
    assert float(perceptual_loss(output, target, [0.0, 1.0])) == pytest.approx(2)


def test_perceptual_loss_uses_every_level():
    """Public code overwrites the loss in its loop over the levels (PAPER, section 6)."""
    levels = [torch.zeros(2, 2, 3, 3) for _ in range(4)]
    for changed in range(4):
        output = [level + 1.0 if index == changed else level for index, level in enumerate(levels)]
        assert perceptual_loss(output, levels) == 1
        assert perceptual_loss(output, levels, [1.0, 2.0, 3.0, 4.0]) == changed + 1


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 1.0, 1.0]])
def test_perceptual_loss_refuses_wrong_number_of_weights(weights):
    level = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, check=refusal("E-LOSS-02", num_output=2, num_weights=len(weights))):
        perceptual_loss([level, level], [level, level], weights)


def test_perceptual_loss_of_pixels_is_mean_absolute_error():
    output, target = torch.rand(2, 2, 1, 8, 8).unbind()
    torch.testing.assert_close(perceptual_loss([output], [target]), (output - target).abs().mean())


def test_perceptual_loss_is_zero_for_equal_levels_and_proportional():
    output, target = torch.rand(2, 2, 4, 3, 3).unbind()
    assert perceptual_loss([output, output], [output, output]) == 0
    further = target + 3 * (output - target)
    torch.testing.assert_close(perceptual_loss([further], [target]), 3 * perceptual_loss([output], [target]))


def test_perceptual_loss_refuses_different_number_of_levels():
    level = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="shorter than"):
        perceptual_loss([level, level], [level])
