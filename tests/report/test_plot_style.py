"""Axes of the report span the whole range; names and numbers are short."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from medgan.report.parameter_plots import ValueAxis
from medgan.report.plot_style import drawn, drawn_range, legend_columns
from medgan.report.study_overview import number_text, short_names
from medgan.search.objectives import Goal

pytestmark = pytest.mark.unit

SSIM, MAE = Goal("val/ssim", "max"), Goal("val/mae_hu", "min")


def test_short_names_are_distinct():
    names = short_names(["loss.lambda_style", "generator.norm", "discriminator.norm", "a.b.c", "x.b.c", "norm"])
    assert list(names.values()) == ["lambda_style", "generator.norm", "discriminator.norm", "a.b.c", "x.b.c", "norm"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00012345, "0.0001234"), (1234.5, "1234"), (27.3149, "27.31"), (math.inf, "-"), (None, "-"), (3, "3")],
)
def test_number_text_has_four_digits(value, text):
    assert number_text(value) == text


def test_drawn_range_clips_collapsed_trial():
    values = [0.80, 0.82, 0.84, 0.86, 0.88, 0.1]
    low, high = drawn_range(values, SSIM)
    assert 0.5 < low < 0.8
    assert high == 0.88
    assert drawn(values, SSIM) == [*values[:5], low]
    assert drawn_range([100.0, 101.0, 102.0, 103.0, 9000.0], MAE)[1] < 200
    assert drawn_range([0.5, 0.5, 0.5], SSIM) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("labels", "width", "columns"),
    [
        (["complete", "pruned"], 10.5, 2),
        (["x"] * 9, 10.5, 7),
        (["x" * 60, "x" * 60], 10.5, 2),
        (["x" * 60, "x" * 60], 10.0, 1),
        (["x" * 200], 10.5, 1),
        (["x" * 30 + "\n" + "x" * 30, "x" * 60], 8.1, 2),
    ],
)
def test_legend_has_as_many_columns_as_fit(labels, width, columns):
    assert legend_columns(labels, width) == columns


@pytest.mark.parametrize(
    ("moves", "places"),
    [
        (FloatDistribution(1e-4, 1e-2, log=True), {1e-4: 0, 1e-3: 0.5, 1e-2: 1}),
        (FloatDistribution(0.0, 4.0), {0.0: 0, 1.0: 0.25, 4.0: 1}),
        (IntDistribution(1, 5), {1: 0, 3: 0.5, 5: 1}),
        (CategoricalDistribution(["a", "b", "c"]), {"b": 0.5}),
        (CategoricalDistribution(["a"]), {"a": 0.5}),
        (FloatDistribution(2.0, 2.0), {2.0: 0.5}),
    ],
)
def test_value_axis_spans_whole_range_of_setting(moves, places):
    scale = ValueAxis.of_setting("x", moves)
    assert {value: scale.place(value) for value in places} == pytest.approx(places)
    assert all(0 <= place <= 1 for place, _ in scale.ticks)
    assert scale.ticks
