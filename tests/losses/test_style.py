import pytest
import torch

from medgan.losses.style import gram, style_loss

pytestmark = pytest.mark.unit


def test_gram_matrix_holds_products_of_channels_over_all_places():
    features = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])[None]  # d = 2, h = 1, w = 2
    products = torch.tensor([[1 * 1 + 2 * 2, 1 * 3 + 2 * 4], [3 * 1 + 4 * 2, 3 * 3 + 4 * 4]])
    torch.testing.assert_close(gram(features), products[None] / (1 * 2 * 2))


def test_gram_matrix_is_symmetric_and_ignores_order_of_places():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    matrix = gram(features)
    torch.testing.assert_close(matrix, matrix.transpose(1, 2))
    torch.testing.assert_close(matrix[1:], gram(features[1:]))
    shuffled = features.flatten(2)[..., torch.randperm(20)].view(2, 3, 4, 5)
    torch.testing.assert_close(gram(shuffled), matrix)


def test_style_loss_equals_value_worked_by_hand():
    one = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])[None]
    other = torch.zeros_like(one)
    # squares of the Gram matrix's entries (5, 11, 11, 25) / 4, over 4 d^2 = 16
    expected = (5**2 + 11**2 + 11**2 + 25**2) / 4**2 / 16
    assert float(style_loss([one], [other])) == pytest.approx(expected)
    assert float(style_loss([one, one], [other, other])) == pytest.approx(2 * expected), "blocks are summed"


def test_style_loss_of_batch_is_mean_over_images():
    output, target = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64).unbind()
    each = [style_loss([output[index : index + 1]], [target[index : index + 1]]) for index in range(3)]
    torch.testing.assert_close(style_loss([output], [target]), torch.stack(each).mean())


def test_style_loss_refuses_different_number_of_blocks():
    block = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        style_loss([block, block], [block])
