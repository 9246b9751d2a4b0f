"""The device time and wall time of a study, over all attempts and starts, and when its budget is used up."""

import pytest
from refusal import refusal

from medgan.distributed.resources import Resources
from medgan.errors import InputError
from medgan.search.budget import Meter, limited
from medgan.search.space import Budget
from medgan.search.study import Identity, fail, frozen, open_study


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"))


@pytest.fixture
def clock():
    return Clock()


def test_meter_counts_failed_attempts_and_notes_of_killed_driver(study, clock):
    meter = Meter(study, Budget(gpu_hours=1.0), Resources(4, device="gpu"), clock)
    for kind in ("infrastructure", "diverged"):
        trial = study.ask()
        meter.begin(trial)
        clock.now += 300
        meter.end(trial)
        fail(study, frozen(study, trial.number), kind, "")
    assert meter.used_up() == ""
    trial = study.ask()
    meter.begin(trial)
    clock.now += 299
    meter.note(trial)
    assert meter.used_up() == ""
    fail(study, frozen(study, trial.number), "interrupted", "killed")
    again = Meter(study, Budget(gpu_hours=0.99), Resources(4, device="gpu"), clock)
    assert again.used_up() == "0.999 of 0.99 GPU-hours used"
    assert again.left().gpu_hours == 0
    assert meter.left().hours is None


def test_meter_counts_running_trials_from_begin(study, clock):
    meter = Meter(study, Budget(gpu_hours=1.0), Resources(2), clock)
    meter.begin(study.ask())
    meter.begin(study.ask())
    clock.now = 900
    assert meter.used_up() == "1 of 1 core-hours used"


def test_meter_adds_wall_hours_over_starts(study, clock):
    first = Meter(study, Budget(hours=1.0), Resources(1), clock)
    trial = study.ask()
    first.begin(trial)
    clock.now = 2400
    first.note(trial)
    clock.now = 90000  # nothing runs
    second = Meter(study, Budget(hours=1.0), Resources(1), clock)
    assert second.used_up() == ""
    clock.now += 1200
    assert second.used_up() == "60 min of 60 min used"


def test_limited_prefers_command_line_over_space():
    space = Budget(gpu_hours=5.0, hours=2.0)
    assert limited(space, gpu_hours=1.0, hours=None) == Budget(gpu_hours=1.0, hours=2.0)


@pytest.mark.parametrize(("option", "name"), [("--max-gpu-hours", "gpu_hours"), ("--max-hours", "hours")])
def test_limited_refuses_budget_of_zero(option, name):
    with pytest.raises(InputError, check=refusal("E-BUDGET-01", option=option, value=0.0)):
        limited(Budget(), **{"gpu_hours": None, "hours": None, name: 0.0})
