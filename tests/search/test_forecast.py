"""The expected time of a search: arithmetic checked by hand, and steps with measured time."""

import pytest
import torch

from medgan.config import with_values
from medgan.presets.medgan import medgan
from medgan.search import forecast as forecasting
from medgan.search.forecast import Forecast, expected_epochs, flops_per_s, forecast, middle_of, step_s
from medgan.search.parameters import Move
from medgan.search.space import Scheduler, Space

TINY = {
    "data.size": 32,
    "generator.base_channels": 4,
    "generator.num_blocks": 1,
    "discriminator.base_channels": 4,
    "extractor.weights": "random",
    "loss.style_blocks": [1],
    "loss.content_blocks": [1],
    "train.batch_size": 2,
    "train.epochs": 5,
}


@pytest.fixture
def space():
    return Space(search={"generator.num_blocks": Move(int=(1, 3))}, scheduler=Scheduler(grace_epochs=5))


def test_expected_epochs_of_asha_without_rung_are_all_epochs():
    assert expected_epochs(2, Scheduler(grace_epochs=3, reduction_factor=3)) == 2


def test_expected_epochs_of_asha_continue_one_third_after_each_rung():
    # 3 epochs for all, 6 more for a third, 18 more for a ninth
    assert expected_epochs(27, Scheduler(grace_epochs=3, reduction_factor=3)) == pytest.approx(3 + 6 / 3 + 18 / 9)


def test_expected_epochs_of_median_stop_half_after_grace():
    assert expected_epochs(10, Scheduler(kind="median", grace_epochs=4)) == 7


def test_expected_epochs_without_scheduler_are_all_epochs():
    assert expected_epochs(10, Scheduler(kind="none")) == 10


@pytest.mark.parametrize(
    ("move", "middle"),
    [({"int": (1, 4)}, 2), ({"float": (0.0, 1.0)}, 0.5), ({"log": (1.0, 100.0)}, 10.0), ({"choice": (16, 34)}, 16)],
)
def test_middle_of_range_is_taken_on_scale_of_range(move, middle):
    assert middle_of(Move(**move)) == pytest.approx(middle)


def test_forecast_total_is_shared_by_concurrent_trials():
    found = Forecast(epoch_s=10.0, epochs=5.0, grace=3)
    assert found.total_s(8, 1) - found.total_s(8, 2) == pytest.approx(4 * 50)


def test_forecast_total_is_none_without_epoch_time():
    assert Forecast(epoch_s=None, epochs=5.0, grace=3).total_s(8, 1) is None


def test_step_s_measures_real_step():
    assert step_s(with_values(medgan(), TINY)) > 0


def test_forecast_measures_quick_step_and_estimates_slow_step(space, monkeypatch):
    base = with_values(medgan(), TINY)
    quick = forecast(space, base, num_slices=600, threads=1)
    monkeypatch.setattr(forecasting, "MEASURED_STEP_S", 0.0)
    slow = forecast(space, base, num_slices=600, threads=1)
    assert (quick.basis, slow.basis) == ("measured", "estimated")
    assert min(slow.epoch_s, quick.epoch_s) > 0
    assert quick.epochs == slow.epochs == 5


def test_forecast_estimate_is_proportional_to_number_of_steps(space, monkeypatch):
    monkeypatch.setattr(forecasting, "MEASURED_STEP_S", 0.0)
    monkeypatch.setattr(forecasting, "flops_per_s", lambda device: 1e10)
    base = with_values(medgan(), TINY)
    once, twice = (forecast(space, base, num_slices=slices, threads=1, workers=1) for slices in (600, 1200))
    assert twice.epoch_s == pytest.approx(2 * once.epoch_s)
    shared = forecast(space, base, num_slices=600, threads=1, workers=2)
    assert shared.epoch_s == pytest.approx(once.epoch_s, rel=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_forecast_for_gpu_has_no_epoch_time_on_machine_without_gpu(space):
    assert forecast(space, with_values(medgan(), TINY), num_slices=600, threads=0).epoch_s is None


def test_forecast_restores_number_of_threads(space):
    before = torch.get_num_threads()
    forecast(space, with_values(medgan(), TINY), num_slices=600, threads=2)
    assert torch.get_num_threads() == before


def test_flops_per_s_of_cpu_is_plausible():
    assert 1e8 < flops_per_s(torch.device("cpu")) < 1e14
