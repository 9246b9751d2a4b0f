"""The events that listeners receive from Ray Tune's callbacks, also for trials that never began."""

from types import SimpleNamespace

import pytest

from medgan.config import Config
from medgan.distributed.resources import Resources
from medgan.search.objectives import Goal
from medgan.search.run_trials import _Forward
from medgan.search.study import Identity, fail, frozen, open_study
from medgan.search.trial import Assignment


class Listener:
    def __init__(self):
        self.calls = []

    def started(self, assignment):
        self.calls.append(("started", assignment.number))

    def ended(self, assignment, result):
        self.calls.append(("ended", assignment.number, result["state"]))


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"))


@pytest.fixture
def trial(study):
    number = study.ask().number
    goals = (Goal("val/ssim", "max"),)
    assignment = Assignment(number, number, Config(), goals, "data", "folder", Resources(2), "scratch")
    return SimpleNamespace(config={"assignment": assignment}, last_result={})


def test_forward_reports_start_and_end_of_trial_lost_before_start(study, trial):
    listener = Listener()
    fail(study, frozen(study, 0), "infrastructure", "the trial's actor died")
    _Forward([listener], study).on_trial_error(0, [], trial)
    assert listener.calls == [("started", 0), ("ended", 0, "infrastructure")]


def test_forward_does_not_report_end_that_study_did_not_store(study, trial):
    listener = Listener()
    forward = _Forward([listener], study)
    forward.on_trial_start(0, [], trial)
    forward.on_trial_complete(0, [], trial)
    assert listener.calls == [("started", 0)]
