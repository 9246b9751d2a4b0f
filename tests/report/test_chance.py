"""The spread between seeds agrees with values by hand, and says whether the best trial leads by more."""

import math

import optuna
import pytest
from optuna.distributions import IntDistribution

from medgan.report.chance import SeedSpread, lead_of_best, pooled_deviation, spread_between_seeds, spread_text
from medgan.report.study_overview import Overview
from medgan.search.objectives import Goal, keep_goals

pytestmark = pytest.mark.unit

SSIM, MAE = Goal("val/ssim", "max"), Goal("val/mae_hu", "min")
MOVES = {"train.seed": IntDistribution(0, 9), "generator.num_blocks": IntDistribution(1, 6)}
STEP = 0.0042 * math.sqrt(2)
"""Separates two seeds with a standard deviation of 0.0042."""


@pytest.fixture
def overview(add):
    """Makes the overview of a study from (blocks, seed or None, value, changes) of its complete trials."""

    def made(*trials, goal=SSIM):
        study = optuna.create_study(direction="maximize" if goal.mode == "max" else "minimize")
        keep_goals(study, [goal])
        for blocks, seed, value, *changes in trials:
            given = {"state": "complete", **(changes[0] if changes else {})}
            params = {"generator.num_blocks": blocks} | ({} if seed is None else {"train.seed": seed})
            add(study, given.pop("state"), value, params=params, moves=MOVES, **given)
        return Overview.of(study)

    return made


def test_pooled_deviation_agrees_with_value_by_hand():
    # squares 1 + 1 and 4 + 0 + 4, over 1 + 2
    assert pooled_deviation([[1.0, 3.0], [2.0, 4.0, 6.0]]) == pytest.approx(math.sqrt(10 / 3))
    assert pooled_deviation([[5.0, 5.0]]) == 0


def test_spread_groups_trials_that_differ_in_seed_alone(overview):
    found = overview((1, 0, 1.0), (2, 0, 2.0), (1, 1, 3.0), (2, 5, 4.0), (2, 7, 6.0), (3, 0, 90.0))
    assert spread_between_seeds(found) == SeedSpread(pytest.approx(math.sqrt(10 / 3)), num_trials=5, num_groups=2)


def test_spread_counts_complete_trials_and_each_seed_once(overview):
    found = overview(
        (1, 0, 1.0), (1, 0, 1.0), (1, 1, 3.0), (1, 2, 0.1, {"state": "pruned"}), (1, 3, 7.0, {"state": "error"})
    )
    assert spread_between_seeds(found) == SeedSpread(pytest.approx(math.sqrt(2)), num_trials=2, num_groups=1)


@pytest.mark.parametrize(
    "trials", [(), ((1, None, 0.5), (1, None, 0.6)), ((1, 0, 0.5), (2, 1, 0.6)), ((1, 0, 0.5), (1, None, 0.6))]
)
def test_spread_is_not_known_without_two_seeds_of_same_settings(overview, trials):
    assert spread_between_seeds(overview(*trials)) is None


def test_lead_is_over_best_trial_with_other_settings(overview):
    assert lead_of_best(overview((1, 0, 0.9), (1, 1, 0.89), (2, 0, 0.7), (3, 0, 0.8))) == pytest.approx(0.1)
    assert lead_of_best(overview((1, None, 90.0), (2, None, 95.0), goal=MAE)) == pytest.approx(5)


def test_lead_ignores_trials_that_cannot_be_best(overview):
    assert lead_of_best(overview((1, 0, 0.9), (2, 0, 0.95, {"excess": 3.0}), (3, 0, 0.8))) == pytest.approx(0.1)
    assert lead_of_best(overview((1, 0, 0.9), (1, 1, 0.8))) is None
    assert lead_of_best(overview()) is None


def pairs(*best):
    """Returns two seeds of each setting, the better one with the given value."""
    return [(1 + place, seed, value - seed * STEP) for place, value in enumerate(best) for seed in (0, 1)]


def test_text_says_that_another_seed_may_name_another_winner(overview):
    assert spread_text(overview(*pairs(0.8, 0.798, 0.7))) == (
        "0.0042 (standard deviation of val/ssim, 6 trials of 3 settings). The best trial leads the next other setting "
        "by 0.0020: less than twice the spread of a difference (0.0119), so another seed may name another winner."
    )


def test_text_says_that_winner_stands(overview):
    assert spread_text(overview(*pairs(0.8, 0.788))) == (
        "0.0042 (standard deviation of val/ssim, 4 trials of 2 settings). The best trial leads the next other setting "
        "by 0.0120: more than twice the spread of a difference (0.0119), so the winner stands."
    )


def test_text_without_other_setting_names_spread_only(overview):
    assert spread_text(overview(*pairs(0.8))) == "0.0042 (standard deviation of val/ssim, 2 trials of 1 setting)."


def test_text_without_spread_doubts_lead(overview):
    assert spread_text(overview((1, 0, 0.8), (2, 0, 0.798))) == (
        "not known: no two trials differ in their seed alone, so the lead of the best trial (0.0020) may be chance."
    )
    assert spread_text(overview((1, 0, 0.8))) == "not known: no two trials differ in their seed alone."


def test_text_is_absent_without_best_trial(overview):
    assert spread_text(overview()) is None


def test_text_without_any_difference_shows_zero(overview):
    assert "not known" in spread_text(overview((1, 0, 0.8), (2, 0, 0.8)))
    assert spread_text(overview((1, 0, 0.8), (1, 1, 0.8), (2, 0, 0.7))).startswith("0.0000 (standard deviation")
