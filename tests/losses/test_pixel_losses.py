import pytest
import torch

from medgan.losses.pixel_losses import PIXEL, l1_loss, l2_loss, tv_loss

pytestmark = pytest.mark.unit


def test_l1_and_l2_loss_equal_values_worked_by_hand():
    output, target = torch.tensor([[1.0, -1.0], [0.0, 0.5]])[None, None], torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert float(l1_loss(output, target)) == pytest.approx((1 + 2 + 0 + 0.5) / 4)
    assert float(l2_loss(output, target)) == pytest.approx((1 + 4 + 0 + 0.25) / 4)


@pytest.mark.parametrize("distance", PIXEL.values(), ids=PIXEL)
def test_pixel_loss_is_symmetric_zero_for_equal_images_and_batch_mean(distance):
    output, target = torch.rand(2, 3, 1, 5, 4, dtype=torch.float64).unbind()
    assert distance(output, output) == 0
    torch.testing.assert_close(distance(output, target), distance(target, output))
    each = [distance(*pair) for pair in zip(output, target, strict=True)]
    torch.testing.assert_close(distance(output, target), torch.stack(each).mean())


def test_total_variation_equals_value_worked_by_hand():
    image = torch.tensor([[0.0, 1.0, 3.0], [2.0, 1.0, 0.0]])[None, None]
    down = (2.0**2 + 0.0 + 3.0**2) / 3
    across = (1.0 + 2.0**2 + 1.0 + 1.0) / 4
    assert float(tv_loss(image)) == pytest.approx(down + across)


def test_total_variation_ignores_brightness_and_orientation():
    image = torch.rand(2, 1, 5, 7, dtype=torch.float64)
    for same in (image + 0.3, image.flip(2), image.flip(3), image.transpose(2, 3), -image):
        torch.testing.assert_close(tv_loss(same), tv_loss(image))
    assert tv_loss(torch.full((1, 1, 4, 4), 0.7)) == 0
    torch.testing.assert_close(tv_loss(3 * image), 9 * tv_loss(image))
