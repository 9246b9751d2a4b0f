"""The shares of the gradient are drawn for the best trial, a line a term, on a logarithmic axis."""

import optuna
import pytest

from medgan.report.gradient_plot import draw_shares
from medgan.report.study_overview import Overview
from medgan.search.objectives import Goal, keep_goals

pytestmark = pytest.mark.unit

SHARES = {
    "10": {"adversarial": 0.5, "perceptual": 0.4, "style": 0.1},
    "2": {"adversarial": 0.3, "perceptual": 0.69995, "style": 0.00005},
    "1": {"adversarial": 0.02, "perceptual": 0.98},
}


@pytest.fixture
def draw(add):
    """Draws the shares of a study from (value, shares or None) of its trials."""

    def drawn(*trials):
        study = optuna.create_study(direction="maximize")
        keep_goals(study, [Goal("val/ssim", "max")])
        for value, shares in trials:
            add(study, "complete", value, **({} if shares is None else {"shares": shares}))
        return draw_shares(Overview.of(study))

    return drawn


def test_picture_has_line_per_term_over_epochs_in_order(draw):
    (axis,) = draw((0.8, SHARES), (0.7, {"1": {"other": 1.0}})).axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
    assert lines["adversarial"] == ([1, 2, 10], [0.02, 0.3, 0.5])
    assert lines["style"] == ([2, 10], [0.001, 0.1]), "a smaller share is drawn at the foot"
    assert "other" not in lines
    assert lines["1 %: below, a term hardly acts"][1] == [0.01, 0.01]


def test_picture_has_logarithmic_axis_and_colors_that_differ(draw):
    (axis,) = draw((0.8, SHARES)).axes
    assert axis.get_yscale() == "log"
    low, high = axis.get_ylim()
    assert 0.0005 < low < 0.001 and 1 < high < 2
    assert len({line.get_color() for line in axis.lines}) == 4


def test_terms_with_same_color_have_other_line(draw):
    terms = {f"term{place}": 0.1 for place in range(10)}
    (axis,) = draw((0.8, {"1": terms})).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 11


def test_reason_stands_in_place_of_picture(draw):
    assert draw() == "There is no best trial."
    for missing in (None, {}):
        assert draw((0.8, missing), (0.7, SHARES)) == (
            "The shares of the gradient were not recorded for trial 0, the best one."
        )
