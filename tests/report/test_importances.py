"""Importances are compared with those of shuffled studies: what chance gives is not taken for a finding."""

import numpy as np
import optuna
import pytest
from matplotlib.colors import to_hex
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from medgan.report.chance import importances_text
from medgan.report.importances import Importances, weigh
from medgan.report.plot_style import BLUE, GREY, ORANGE
from medgan.report.study_overview import Overview
from medgan.report.trial_plots import draw_importances
from medgan.search.objectives import Goal

pytestmark = pytest.mark.unit

SSIM, MAE = Goal("val/ssim", "max"), Goal("val/mae_hu", "min")


def trials_of(count, names="abc", *, seed=0):
    """Returns trials with settings drawn at random in [0, 1], and the generator for their values."""
    numbers = np.random.default_rng(seed)
    moves = {f"loss.{name}": FloatDistribution(0, 1) for name in names}
    drawn = [{name: float(numbers.uniform()) for name in moves} for _ in range(count)]
    return [create_trial(value=0.0, params=params, distributions=moves) for params in drawn], numbers


def values_of(trials, *names):
    return [sum(trial.params[f"loss.{name}"] for name in names) for trial in trials]


def overview_of(*found, goals=(SSIM,), settings="abc"):
    """Returns an overview whose importances are given."""
    moves = {f"loss.{name}": FloatDistribution(0, 1) for name in settings}
    overview = Overview(goals=goals, trials=[], scored=[], best=None, front=[], settings=moves)
    vars(overview)["importances"] = found
    return overview


def given(floor, **shares):
    return Importances({f"loss.{name}": share for name, share in shares.items()}, floor)


@pytest.mark.parametrize("goal", [SSIM, MAE])
def test_importances_are_those_of_optuna(goal):
    trials, numbers = trials_of(30)
    values = [float(value) for value in numbers.normal(size=30)]
    study = optuna.create_study(direction="maximize" if goal is SSIM else "minimize")
    for trial, value in zip(trials, values, strict=True):
        study.add_trial(create_trial(value=value, params=trial.params, distributions=trial.distributions))
    found = weigh(trials, values, goal, shuffles=1)
    assert found.by_setting == pytest.approx(optuna.importance.get_param_importances(study))


@pytest.mark.filterwarnings("ignore:Argument ``normalize``")
def test_floor_of_few_trials_is_largest_importance_that_any_of_them_gives_as_best():
    trials, _ = trials_of(5)
    raw = []
    for best in range(5):
        study = optuna.create_study(direction="maximize")
        for place, trial in enumerate(trials):
            value = float(place == best)
            study.add_trial(create_trial(value=value, params=trial.params, distributions=trial.distributions))
        raw.append(optuna.importance.get_param_importances(study, normalize=False))
    found = weigh(trials, [5.0, 4.0, 3.0, 2.0, 1.0], SSIM)
    assert found.floor == pytest.approx(max(max(one.values()) for one in raw) / sum(raw[0].values()))


def test_floor_is_same_each_time_and_same_for_opposite_goal():
    trials, numbers = trials_of(12)
    values = numbers.normal(size=12)
    assert weigh(trials, values, SSIM, shuffles=20) == weigh(trials, values, SSIM, shuffles=20)
    assert weigh(trials, values, SSIM, shuffles=20) == weigh(trials, -values, MAE, shuffles=20)


def test_setting_that_alone_decides_is_above_floor_and_others_are_not():
    found = []
    for seed in range(8):
        trials, _ = trials_of(40, seed=seed)
        found.append(weigh(trials, values_of(trials, "b"), SSIM, shuffles=30).above)
    assert found.count(["loss.b"]) >= 6


def test_settings_that_decide_together_do_not_hide_each_other():
    trials, _ = trials_of(120)
    found = weigh(trials, values_of(trials, "a", "c"), SSIM, shuffles=40)
    assert sorted(found.above) == ["loss.a", "loss.c"]
    assert found.by_setting["loss.b"] < found.floor < 0.5


def test_random_values_give_nothing_above_floor_in_about_95_percent_of_studies():
    nothing = 0
    for seed in range(40):
        trials, numbers = trials_of(30, "ab", seed=seed)
        nothing += not weigh(trials, numbers.normal(size=30), SSIM, shuffles=30).above
    assert 34 <= nothing <= 40


def test_no_setting_of_ten_trials_can_be_above_floor():
    trials, _ = trials_of(10)
    assert weigh(trials, values_of(trials, "a"), SSIM).above == []


def test_settings_that_never_vary_have_no_importance():
    trials, _ = trials_of(1)
    found = weigh(trials * 6, range(6), SSIM, shuffles=10)
    assert found.above == []


def test_above_names_most_important_setting_first_and_leaves_out_floor_itself():
    assert given(0.2, a=0.2, b=0.3, c=0.5).above == ["loss.c", "loss.b"]


def bars_of(axis):
    """Returns color and width of each bar, from the bottom up."""
    bars = sorted((bar for bars in axis.containers for bar in bars), key=lambda bar: bar.get_y())
    return [(to_hex(bar.get_facecolor()), round(bar.get_width(), 2)) for bar in bars]


def test_picture_has_grey_bars_up_to_floor_and_dashed_line_at_it():
    figure = draw_importances(overview_of(given(0.3, a=0.3, b=0.1, c=0.6)))
    (axis,) = figure.axes
    assert bars_of(axis) == [(GREY, 0.1), (GREY, 0.3), (BLUE, 0.6)]
    assert [(line.get_xdata()[0], line.get_linestyle()) for line in axis.lines if len(line.get_xdata())] == [
        (0.3, "--")
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "cannot be told from chance" in names
    assert "95 % of shuffled studies stay below (approximate)" in names


def test_picture_of_two_goals_has_line_for_each():
    found = given(0.3, a=0.9, b=0.1), given(4.0, a=0.8, b=0.2)
    (axis,) = draw_importances(overview_of(*found, goals=(SSIM, MAE), settings="ab")).axes
    lines = [line for line in axis.lines if len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_color()) for line in lines] == [(0.3, BLUE), (1.0, ORANGE)]
    assert bars_of(axis) == [(GREY, 0.2), (GREY, 0.1), (GREY, 0.8), (BLUE, 0.9)]
    assert axis.get_xlim()[1] > 1


def test_text_says_which_settings_can_be_told_from_chance():
    some, none = given(0.2, a=0.1, b=0.3, c=0.6), given(0.7, a=0.1, b=0.3, c=0.6)
    assert importances_text(overview_of(some)) == "2 of 3 settings can be told from chance: c, b."
    assert importances_text(overview_of(none)) == "None of the 3 settings can be told from chance."
    assert importances_text(overview_of(none, some, goals=(SSIM, MAE))) == (
        "None of the 3 settings can be told from chance for val/ssim. "
        "2 of 3 settings can be told from chance for val/mae_hu: c, b."
    )


def test_text_is_absent_without_importances():
    assert importances_text(Overview(goals=(SSIM,), trials=[], scored=[], best=None, front=[], settings={})) is None
