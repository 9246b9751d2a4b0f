import numpy as np
import pytest
from scipy import ndimage

from medgan.data.prepare.body_mask import body_mask, body_mask_of_ct, body_threshold
from medgan.tasks import CT, MR

pytestmark = pytest.mark.unit


def test_body_mask_fills_lung_and_leaves_out_couch():
    hu = np.full((3, 20, 20), -1000.0)
    hu[:, 3:13, 3:13] = 40
    hu[:, 6:9, 6:9] = -850  # a lung
    hu[:, 17, 2:18] = 100  # the couch
    expected = np.zeros(hu.shape, bool)
    expected[:, 3:13, 3:13] = True
    np.testing.assert_array_equal(body_mask(hu, -300), expected)


def test_body_mask_of_air_is_empty():
    assert not body_mask(np.full((2, 4, 4), -1000.0), -300).any()


def test_body_mask_takes_only_voxels_above_threshold():
    hu = np.full((1, 3, 3), -300.0)
    assert not body_mask(hu, -300).any()
    assert body_mask(hu + 1, -300).all()


def test_body_threshold_is_physical_for_ct_and_share_of_window_for_mr():
    assert body_threshold(CT, (-1000, 2000)) == -300
    assert body_threshold(MR, (20, 220)) == 40


@pytest.mark.parametrize("seed", range(5))
def test_body_mask_equals_largest_part_of_scipy_hole_filling(seed):
    draw = np.random.default_rng(seed)
    hu = ndimage.gaussian_filter(draw.normal(size=(4, 24, 30)), 1.5)
    hu[:, : 4 * (seed % 2)] = -1  # a body that touches the border of its slices, and one that does not
    filled = np.stack([ndimage.binary_fill_holes(one) for one in hu > 0])
    parts, _ = ndimage.label(filled)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    np.testing.assert_array_equal(body_mask(hu, 0), largest)


def body_on_a_couch(pixel_mm=2.0):
    """A body with a lung, and the two shells of a couch around foam; the upper shell touches the body."""
    hu = np.full((3, 120, 120), -1000.0)
    y, x = np.mgrid[:120, :120] - 60
    body = (x / 45) ** 2 + (y / 30) ** 2 < 1
    hu[:, body] = 40
    hu[:, ((x - 18) / 12) ** 2 + (y / 15) ** 2 < 1] = -850
    shell = np.zeros((120, 120), bool)
    shell[90:92, 10:110] = shell[106:108, 10:110] = shell[90:108, 10:12] = shell[90:108, 108:110] = True
    hu[:, shell & ~body] = -150
    hu[:, 92:106, 12:108] = -800
    return hu, body


def test_body_mask_of_ct_leaves_out_couch_that_touches_the_body():
    hu, body = body_on_a_couch()
    found = body_mask_of_ct(hu, -300, spacing_mm=2.0)
    assert not found[:, 95:].any()
    assert 2 * (found & body).sum() / (found.sum() + 3 * body.sum()) > 0.98
    assert body_mask(hu, -300)[:, 95:].any(), "the couch is part of the former mask"


def test_body_mask_of_ct_keeps_both_legs():
    hu = np.full((3, 40, 60), -1000.0)
    hu[:, 10:30, 5:25] = hu[:, 10:30, 35:55] = 40
    assert body_mask_of_ct(hu, -300, spacing_mm=4.0).sum() == (hu > 0).sum()


def test_body_mask_of_ct_of_air_is_empty():
    assert not body_mask_of_ct(np.full((2, 8, 8), -1000.0), -300, spacing_mm=2.0).any()
