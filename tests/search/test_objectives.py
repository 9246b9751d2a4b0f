"""Goals of a search (metrics of an epoch and their better direction), and limits on metrics."""

import pytest
from refusal import refusal

from medgan.errors import InputError
from medgan.search.objectives import Constraint, goal_named

pytestmark = pytest.mark.unit

COSTS_LISTED = "cost/gpu_hours, cost/parameters, time/epoch_s"


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val/ssim", "max"), ("val/mae_hu_body", "min"), ("cost/gpu_hours", "min"), ("cost/parameters", "min")],
)
def test_goal_mode_follows_from_metric(metric, mode):
    goal = goal_named(metric)
    assert goal == goal_named(metric, mode)
    assert (goal.score({metric: 2.0}) > goal.score({metric: 1.0})) == (mode == "max")


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("val/ssim", "min", refusal("E-GOAL-03", metric="val/ssim", better="larger", mode="min")),
        ("cost/gpu_hours", "max", refusal("E-GOAL-03", metric="cost/gpu_hours", better="smaller", mode="max")),
        ("loss/generator/l1", None, refusal("E-GOAL-04", metric="loss/generator/l1")),
        ("val/bias_hu", None, refusal("E-GOAL-02", metric="val/bias_hu")),
        ("ssim", None, refusal("E-GOAL-05", costs=COSTS_LISTED, metric="ssim")),
        ("val/accuracy", None, refusal("E-METRIC-02", name="val/accuracy")),
        ("cost/money", None, refusal("E-GOAL-05", costs=COSTS_LISTED, metric="cost/money")),
    ],
)
def test_goal_refuses_unusable_metric_or_mode(metric, mode, expected):
    with pytest.raises(InputError, check=expected):
        goal_named(metric, mode)


@pytest.mark.parametrize(("text", "excess"), [("val/mae_hu <= 100", 20.0), ("val/mae_hu >= 1.5e2", 30.0)])
def test_constraint_excess_is_distance_beyond_limit(text, excess):
    assert Constraint.read(text).excess({"val/mae_hu": 120.0}) == excess
    assert Constraint.read(str(Constraint.read(text))) == Constraint.read(text)


@pytest.mark.parametrize(("bias", "excess"), [(-12.0, 7.0), (12.0, 7.0), (-4.0, -1.0), (0.0, -5.0)])
def test_constraint_on_bias_limits_absolute_value(bias, excess):
    assert Constraint.read("val/bias_hu_body <= 5").excess({"val/bias_hu_body": bias}) == excess


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val/bias_hu >= -5", refusal("E-GOAL-06", text="val/bias_hu >= -5", metric="val/bias_hu")),
        ("val/bias_hu <= -5", refusal("E-GOAL-06", text="val/bias_hu <= -5", metric="val/bias_hu")),
        ("val/mae_hu < 100", refusal("E-GOAL-01", text="val/mae_hu < 100")),
        ("val/mae_hu", refusal("E-GOAL-01", text="val/mae_hu")),
        ("val/mae_hu <= much", refusal("E-GOAL-01", text="val/mae_hu <= much")),
        ("loss/generator/l1 <= 3", refusal("E-GOAL-04", metric="loss/generator/l1")),
    ],
)
def test_constraint_refuses_invalid_text(text, expected):
    with pytest.raises(InputError, check=expected):
        Constraint.read(text)
