"""What a search may want: metrics of an epoch, in the direction that is better, and limits on them."""

import pytest

from medgan.search.objectives import Constraint, goal_named


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val/ssim", "max"), ("val/mae_hu_body", "min"), ("cost/gpu_hours", "min"), ("cost/parameters", "min")],
)
def test_the_mode_follows_from_the_metric(metric, mode):
    goal = goal_named(metric)
    assert goal == goal_named(metric, mode)
    assert (goal.score({metric: 2.0}) > goal.score({metric: 1.0})) == (mode == "max")


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        ("val/ssim", "min", "val/ssim is better when it is larger; got mode min"),
        ("cost/gpu_hours", "max", "cost/gpu_hours is better when it is smaller; got mode max"),
        ("loss/generator/l1", None, "loss/generator/l1 is a training loss, whose weights differ from trial to trial"),
        ("val/bias_hu", None, "val/bias_hu is signed, best at 0"),
        ("ssim", None, "expected a metric that begins with val/, or one of cost/gpu_hours.*; got 'ssim'"),
        ("val/accuracy", None, "expected a name that begins with one of ssim.*; got 'val/accuracy'"),
        ("cost/money", None, "or one of cost/gpu_hours, cost/parameters, time/epoch_s; got 'cost/money'"),
    ],
)
def test_what_is_no_goal_is_refused(metric, mode, message):
    with pytest.raises(ValueError, match=message):
        goal_named(metric, mode)


@pytest.mark.parametrize(("text", "excess"), [("val/mae_hu <= 100", 20.0), ("val/mae_hu >= 1.5e2", 30.0)])
def test_a_constraint_says_how_far_it_is_missed(text, excess):
    assert Constraint.read(text).excess({"val/mae_hu": 120.0}) == excess
    assert Constraint.read(str(Constraint.read(text))) == Constraint.read(text)


@pytest.mark.parametrize("text", ["val/mae_hu < 100", "val/mae_hu", "val/mae_hu <= much", "loss/generator/l1 <= 3"])
def test_what_is_no_constraint_is_refused(text):
    with pytest.raises(ValueError, match="expected METRIC <= NUMBER|is a training loss"):
        Constraint.read(text)
