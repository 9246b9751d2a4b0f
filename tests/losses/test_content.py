import pytest
import torch

from medgan.losses.content import content_loss

pytestmark = pytest.mark.unit


def test_content_loss_sums_mean_squared_differences_of_blocks():
    output = [torch.tensor([[1.0, -3.0]]).view(1, 1, 1, 2), torch.tensor([[0.0, 2.0, 4.0]]).view(1, 3, 1, 1)]
    target = [torch.zeros(1, 1, 1, 2), torch.zeros(1, 3, 1, 1)]
    assert float(content_loss(output, target)) == pytest.approx((1 + 9) / 2 + (0 + 4 + 16) / 3)


def test_content_loss_uses_every_channel():
    target = torch.zeros(1, 4, 2, 2)
    for channel in range(4):
        output = target.clone()
        output[0, channel] = 2.0
        assert float(content_loss([output], [target])) == pytest.approx(2.0**2 / 4)


def test_content_loss_is_symmetric_and_zero_for_equal_features():
    output, target = torch.rand(2, 2, 4, 3, 3).unbind()
    assert content_loss([output], [output]) == 0
    torch.testing.assert_close(content_loss([output], [target]), content_loss([target], [output]))


def test_content_loss_refuses_different_number_of_blocks():
    block = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        content_loss([block], [block, block])


def test_content_loss_uses_every_block():
    blocks = [torch.zeros(1, 2, 3, 3) for _ in range(3)]
    for changed in range(3):
        output = [block + 2.0 if index == changed else block for index, block in enumerate(blocks)]
        assert content_loss(output, blocks) == 4
