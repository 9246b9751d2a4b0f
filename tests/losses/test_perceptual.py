import pytest
import torch

from medgan.losses.perceptual import perceptual_loss


def test_levels_are_summed_each_as_a_mean_absolute_difference():
    output = [torch.tensor([[1.0, -1.0]]).view(1, 1, 1, 2), torch.tensor([[0.0, 2.0, 4.0]]).view(1, 3, 1, 1)]
    target = [torch.zeros(1, 1, 1, 2), torch.tensor([[0.0, 0.0, 0.0]]).view(1, 3, 1, 1)]
    assert float(perceptual_loss(output, target)) == pytest.approx((1 + 1) / 2 + (0 + 2 + 4) / 3)


def test_the_pixel_level_alone_is_the_mean_absolute_error():
    output, target = torch.rand(2, 2, 1, 8, 8).unbind()
    torch.testing.assert_close(perceptual_loss([output], [target]), (output - target).abs().mean())


def test_it_is_zero_for_equal_levels_and_grows_in_proportion():
    output, target = torch.rand(2, 2, 4, 3, 3).unbind()
    assert perceptual_loss([output, output], [output, output]) == 0
    further = target + 3 * (output - target)
    torch.testing.assert_close(perceptual_loss([further], [target]), 3 * perceptual_loss([output], [target]))


def test_a_different_number_of_levels_is_refused():
    level = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="shorter than"):
        perceptual_loss([level, level], [level])
