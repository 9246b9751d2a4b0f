"""The plan's arithmetic, by hand."""

import pytest

from medgan.config import with_values
from medgan.presets.medgan import medgan
from medgan.search.moves import Move
from medgan.search.plan import Forecast, expected_epochs, middle_of, step_s
from medgan.search.space import Scheduler


def test_without_a_rung_before_the_end_every_trial_runs_through():
    assert expected_epochs(2, Scheduler(grace_epochs=3, reduction_factor=3)) == 2


def test_a_third_of_the_trials_passes_each_rung():
    # 3 epochs for all, 6 more for a third, 18 more for a ninth
    assert expected_epochs(27, Scheduler(grace_epochs=3, reduction_factor=3)) == pytest.approx(3 + 6 / 3 + 18 / 9)


@pytest.mark.parametrize(
    ("move", "middle"),
    [({"int": (1, 4)}, 2), ({"float": (0.0, 1.0)}, 0.5), ({"log": (1.0, 100.0)}, 10.0), ({"choice": (16, 34)}, 16)],
)
def test_the_middle_of_a_range_is_taken_on_its_own_scale(move, middle):
    assert middle_of(Move(**move)) == pytest.approx(middle)


def test_trials_at_once_share_the_time():
    forecast = Forecast(epoch_s=10.0, epochs=5.0, grace=3)
    assert forecast.total_s(8, 1) - forecast.total_s(8, 2) == pytest.approx(4 * 50)


def test_an_unmeasured_epoch_gives_no_forecast():
    assert Forecast(epoch_s=None, epochs=5.0, grace=3).total_s(8, 1) is None


def test_a_step_is_really_made():
    config = with_values(
        medgan(),
        {"data.size": 32, "generator.base_channels": 4, "generator.num_blocks": 1, "extractor.weights": "random"},
    )
    assert step_s(with_values(config, {"loss.style_blocks": [1], "loss.content_blocks": [1]})) > 0
