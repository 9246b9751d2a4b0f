"""The best epoch by a validation metric, from values by hand."""

import math

import pytest

from medgan.training.loop import best_epoch

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("val/ssim", (0.5, 0.7, 0.6), 1),
        ("val/mae_hu", (90.0, 80.0, 85.0), 1),
        ("val/bias_hu", (-300.0, -20.0, 5.0, 40.0), 2),
        ("val/bias_hu_body", (-3.0, 4.0, -9.0), 0),
        ("val/bias_suv", (2.0, -2.0, 2.5), 1),
        ("val/bias_hu", (math.nan, 400.0, math.nan), 1),
    ],
)
def test_best_epoch_has_best_value_or_bias_nearest_to_zero_and_is_last_of_equals(metric, values, expected):
    assert best_epoch([{metric: value} for value in values], metric) == expected


def test_best_epoch_without_value_is_last():
    assert best_epoch([{}, {"val/bias_hu": math.nan}, {}], "val/bias_hu") == 2
