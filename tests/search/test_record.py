"""What a search writes down, and which checkpoints it keeps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medgan.config import Config
from medgan.distributed.resident import Resources
from medgan.engine.checkpoint import BEST, LAST, PICTURES
from medgan.search.record import Recorder, Retention
from medgan.search.study import Identity, fail, open_study, recover
from medgan.search.trial import Assignment
from medgan.tasks import TASKS


class Memory:
    """A tracker that remembers."""

    def __init__(self):
        self.said = []

    def params(self, values):
        self.said.append(("params", dict(values)))

    def tags(self, values):
        self.said.append(("tags", dict(values)))

    def metrics(self, values, step):
        self.said.append(("metrics", dict(values), step))

    def artifact(self, path, folder=""):
        assert Path(path).exists()
        self.said.append(("artifact", Path(path).name, folder))

    def finish(self, status):
        self.said.append(("finish", status))


@pytest.fixture
def assignment(tmp_path):
    def made(root):
        folder = tmp_path / f"{root:04d}"
        folder.mkdir()
        for name in (LAST, BEST):
            (folder / name).write_bytes(b"weights")
        return Assignment(root, root, Config(), "data", str(folder), Resources(2), "scratch")

    return made


def ended(value, state="complete"):
    return {"state": state, "objective": value, "metrics": {"val/ssim": value}, "epoch": 1}


def test_a_trial_is_told_in_order_with_pictures_and_an_honest_state(assignment):
    tracker, trial = Memory(), assignment(0)
    arrays = {name: np.zeros((2, 8, 8), np.float32) for name in ("source", "output", "target")}
    np.savez(Path(trial.folder) / PICTURES, **arrays, titles=np.array(["patient aa slice 1", "patient aa slice 2"]))
    recorder = Recorder(lambda root: tracker, task=TASKS["pet2ct"], tags={"medgan.task": "pet2ct"})
    recorder.started(trial)
    recorder.epoch(trial, ended(0.5, "running"))
    recorder.ended(trial, ended(0.5, "running"))
    assert recorder.close(60)
    assert [entry[0] for entry in tracker.said] == ["params", "tags", "metrics", "artifact", "tags", "finish"]
    assert tracker.said[0][1]["generator.num_blocks"] == 1
    assert tracker.said[2] == ("metrics", {"val/ssim": 0.5, "val/best_ssim": 0.5}, 1)
    assert tracker.said[4][1]["medgan.state"] == "pruned"
    assert tracker.said[5] == ("finish", "FINISHED")


def test_a_store_that_is_away_does_not_end_the_search_but_is_told(assignment):
    def away(root):
        raise OSError("the server is away")

    recorder = Recorder(away, task=TASKS["pet2ct"], tags={})
    recorder.started(assignment(0))
    assert not recorder.close(60)


def test_a_retry_of_a_trial_is_not_ended_by_its_first_attempt(assignment):
    tracker, trial = Memory(), assignment(0)
    recorder = Recorder(lambda root: tracker, task=TASKS["pet2ct"], tags={})
    recorder.started(trial)
    recorder.ended(trial, {"state": "infrastructure"})
    recorder.started(replace(trial, number=1))
    assert recorder.close(60)
    said = [entry for entry in tracker.said if entry[0] == "finish" or "medgan.trial" in entry[1]]
    assert [entry[0] for entry in said] == ["tags", "finish", "tags"]


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"), seed=0)


def left(trials, name):
    return [(Path(trial.folder) / name).exists() for trial in trials]


def test_only_the_best_trial_keeps_its_generator(assignment, study, tmp_path):
    retention, trials = Retention(study, tmp_path), [assignment(root) for root in range(4)]
    for trial, value in zip(trials[:3], (0.4, 0.6, 0.5), strict=True):
        study.tell(study.ask({}).number, value)
        retention.ended(trial, ended(value))
    assert left(trials, BEST) == [False, True, False, True]
    assert left(trials, LAST) == [False, False, False, True]


def test_an_interrupted_trial_keeps_its_checkpoint(assignment, study, tmp_path):
    study.ask({})
    recover(study)
    trial = assignment(0)
    Retention(study, tmp_path).ended(trial, {"state": "infrastructure"})
    assert left([trial], LAST) == [True]


def test_a_diverged_trial_never_becomes_the_one_that_is_kept(assignment, study, tmp_path):
    trials = [assignment(0), assignment(1)]
    study.tell(study.ask({}).number, 0.4)
    number = study.ask({}).number
    fail(study, study.trials[number], "diverged", "nan")
    Retention(study, tmp_path).ended(trials[1], ended(0.9, "diverged"))
    assert left(trials, BEST) == [True, False]
