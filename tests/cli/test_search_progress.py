"""A search is shown as lines without a screen, and as a table with a screen."""

import io

import pytest
from rich.console import Console

from medgan.cli.search_progress import SearchProgress
from medgan.cli.terminal import Terminal
from medgan.config import Config, TrainConfig
from medgan.distributed.resources import Resources
from medgan.search.launch import Forecast
from medgan.search.objectives import Goal
from medgan.search.trial import Assignment
from medgan.workflows.missing_trials import SearchStart

pytestmark = pytest.mark.unit

SSIM = Goal("val/ssim", "max")


def assignment(first_attempt):
    config = Config(train=TrainConfig(epochs=4))
    return Assignment(first_attempt, first_attempt, config, (SSIM,), "data", "folder", Resources(2), "scratch")


def result(epoch, value, state="running", **more):
    metrics = {"val/ssim": value, "val/mae_hu": 100.0, "time/epoch_s": 10.0, **more.pop("metrics", {})}
    return {"epoch": epoch, "values": [value], "state": state, "events": [], "metrics": metrics, **more}


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=140)


@pytest.fixture
def progress(screen):
    watcher = SearchProgress(Terminal(console=screen))
    watcher.begin(SearchStart(SSIM, target=3, finished=1, forecast=Forecast(None, epochs=4.0, grace=2), concurrent=1))
    return watcher


def test_search_progress_without_screen_prints_line_for_each_event(progress, screen):
    progress.started(assignment(1))
    progress.epoch(assignment(1), result(1, 0.5))
    progress.ended(assignment(1), result(1, 0.5, "pruned"))
    first, second = screen.file.getvalue().splitlines()
    assert first.startswith("trial 1: epoch 1/4, val/ssim 0.500, MAE 100 HU, 10.0 s; 1 of 3 trials done, best 0.500")
    assert first.endswith("about 70 s left")  # 3 epochs of this trial, 4 of one more
    assert second == "trial 1: stopped early"


def test_search_progress_shows_events_of_replayed_epoch_but_not_epoch(progress, screen):
    progress.started(assignment(1))
    progress.epoch(assignment(1), result(1, 0.5))
    progress.epoch(assignment(1), result(1, 0.5, events=["goes on after epoch 1, from its checkpoint"]))
    assert [line.split(",")[0] for line in screen.file.getvalue().splitlines()] == [
        "trial 1: epoch 1/4",
        "trial 1: goes on after epoch 1",
    ]


def test_failed_trial_is_shown_with_reason_and_counts_as_finished(progress, screen):
    progress.started(assignment(1))
    progress.ended(assignment(1), result(0, 0.0, "diverged", reason="loss is nan"))
    assert "trial 1: diverged (loss is nan)" in screen.file.getvalue()
    assert progress.finished == 2


def test_interrupted_trial_does_not_count_as_finished(progress):
    progress.started(assignment(1))
    progress.ended(assignment(1), {"state": "infrastructure"})
    assert progress.finished == 1


def test_table_shows_state_epoch_best_value_and_time_left(progress, screen):
    progress.started(assignment(1))
    progress.epoch(assignment(1), result(2, 0.5))
    screen.print(progress._table())
    table = screen.file.getvalue()
    for text in ("time left", "running", "2/4", "0.500", "20 s"):
        assert text in table


def test_search_progress_collects_handover_times(progress):
    progress.started(assignment(1))
    progress.epoch(assignment(1), result(1, 0.5, metrics={"time/handover_s": 0.25}))
    assert progress.handovers == [0.25]
