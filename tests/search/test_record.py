"""What a search writes down, and which checkpoints it keeps."""

from pathlib import Path

import numpy as np
import pytest

from medgan.config import Config
from medgan.distributed.resident import Resources
from medgan.engine.checkpoint import BEST, LAST, PICTURES
from medgan.search.record import Recorder, Retention
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


def test_a_store_that_is_away_does_not_end_the_search(assignment):
    def away(root):
        raise OSError("the server is away")

    recorder = Recorder(away, task=TASKS["pet2ct"], tags={})
    recorder.started(assignment(0))
    assert recorder.close(60)
    assert recorder.background.failures == 1


def test_only_the_best_trial_keeps_its_generator(assignment):
    retention, trials = Retention(None), [assignment(root) for root in range(3)]
    for trial, value in zip(trials, (0.4, 0.6, 0.5), strict=True):
        retention.ended(trial, ended(value))
    assert [(Path(trial.folder) / BEST).exists() for trial in trials] == [False, True, False]
    assert not any((Path(trial.folder) / LAST).exists() for trial in trials)


def test_an_interrupted_trial_keeps_its_checkpoint(assignment):
    trial = assignment(0)
    Retention(None).ended(trial, {"state": "infrastructure"})
    assert (Path(trial.folder) / LAST).exists()


def test_a_diverged_trial_never_becomes_the_one_that_is_kept(assignment):
    retention, good, bad = Retention(None), assignment(0), assignment(1)
    retention.ended(good, ended(0.4))
    retention.ended(bad, ended(0.9, "diverged"))
    assert (Path(good.folder) / BEST).exists()
    assert not (Path(bad.folder) / BEST).exists()
