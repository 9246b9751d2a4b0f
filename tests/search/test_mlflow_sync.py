"""The records that a search makes of each trial in MLflow."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from memory_tracker import Memory

from medgan.config import Config, validated
from medgan.distributed.resources import Resources
from medgan.provenance import job_facts
from medgan.search.mlflow_sync import Recorder
from medgan.search.objectives import Goal
from medgan.search.study import Identity, fail, open_study
from medgan.search.trial import Assignment
from medgan.tasks import TASKS
from medgan.tracking import outage
from medgan.tracking.mlflow_runs import MlflowStudy, now_ms
from medgan.tracking.store import read_run
from medgan.training.checkpoint import PICTURES


@pytest.fixture
def assignment(tmp_path):
    def make(first_attempt, metric="val/ssim", mode="max"):
        folder = tmp_path / f"{first_attempt:04d}"
        folder.mkdir()
        return Assignment(
            first_attempt,
            first_attempt,
            Config(),
            (Goal(metric, mode),),
            "data",
            str(folder),
            Resources(2, 3),
            "scratch",
        )

    return make


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"), seed=0)


@pytest.fixture(scope="module")
def facts():
    return job_facts(data_digest="d" * 64, split_digest="5" * 64)


@pytest.fixture
def recorder(study, facts):
    """Returns a function that makes a recorder, whose runs another function opens."""
    common = {
        "study": study,
        "task": TASKS["pet2ct"],
        "facts": facts,
        "recorded": lambda first_attempt: None,
        "say": print,
    }
    return lambda open_run, **other: Recorder(open_run, **(common | other))


def epoch_of(value, number=1):
    metrics = {"val/ssim": value}
    return {"state": "running", "objective": value, "values": [value], "metrics": metrics, "epoch": number}


def test_recorder_records_origin_metrics_pictures_and_state_in_order(assignment, study, recorder):
    tracker, trial = Memory(), assignment(study.ask({}).number)
    arrays = {name: np.zeros((2, 8, 8), np.float32) for name in ("source", "output", "target")}
    np.savez(Path(trial.folder) / PICTURES, **arrays, titles=np.array(["patient aa slice 1", "patient aa slice 2"]))
    listening = recorder(tracker.opened)
    listening.machine.ticks = 0, 0  # long ago, because no tick of the kernel may pass during a short test
    listening.started(trial)
    listening.epoch(trial, epoch_of(0.5))
    listening.ended(trial, {"state": "pruned", "reason": ""})
    assert listening.close(60)
    methods = ["tags", "params", "artifact", "artifact", "metrics", "tags", "artifact", "finish"]
    assert [entry[0] for entry in tracker.calls] == methods
    assert tracker.calls[0][1]["medgan.state"] == "running"
    assert tracker.calls[1][1]["generator.num_blocks"] == 1
    assert [entry[1:] for entry in tracker.calls if entry[0] == "artifact"] == [
        ("config.json", ""),
        ("provenance.json", ""),
        ("validation.png", "pictures"),
    ]
    assert tracker.calls[4] == ("metrics", {"val/ssim": 0.5, "val/best_ssim": 0.5}, 1)
    assert "system/cpu_utilization_percentage" in tracker.system
    assert tracker.calls[5][1] == {"medgan.state": "pruned", "medgan.reason": "-"}
    assert tracker.calls[7] == ("finish", "FINISHED")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("complete", "FINISHED"),
        ("diverged", "FAILED"),
        ("out_of_memory", "FAILED"),
        ("infrastructure", "KILLED"),
        ("interrupted", "KILLED"),
        ("budget", "KILLED"),
    ],
)
def test_recorder_translates_end_of_trial_to_mlflow_status(assignment, study, recorder, state, status):
    tracker, trial = Memory(), assignment(study.ask({}).number)
    listening = recorder(tracker.opened)
    listening.started(trial)
    listening.ended(trial, {"state": state, "reason": "why"})
    assert listening.close(60)
    assert tracker.calls[-2:] == [("tags", {"medgan.state": state, "medgan.reason": "why"}), ("finish", status)]


def test_recorder_best_value_follows_direction_of_first_goal(assignment, study, recorder):
    tracker, trial = Memory(), assignment(study.ask({}).number, "val/mae_hu", "min")
    listening = recorder(tracker.opened)
    listening.started(trial)
    result = {"objective": -80.0, "values": [80.0], "metrics": {"val/mae_hu": 95.0}, "epoch": 4}
    listening.epoch(trial, {"state": "running", **result})
    assert listening.close(60)
    assert tracker.calls[-1] == ("metrics", {"val/mae_hu": 95.0, "val/best_mae_hu": 80.0}, 4)


def test_recorder_stores_settings_and_provenance_of_trial(assignment, study, recorder, facts):
    tracker, trial = Memory(), assignment(study.ask({}).number)
    listening = recorder(tracker.opened)
    listening.started(trial)
    assert listening.close(60)
    assert validated(json.loads(tracker.files["config.json"])) == trial.config
    kept = json.loads(tracker.files["provenance.json"])
    assert {section: kept[section] for section in facts} == facts
    assert kept["run"] == {"workers": 2, "threads": 3, "device": "cpu", "seed": 0}
    assert kept["trial"] == {"number": 0, "root": 0, "attempt": 1}
    tags = tracker.calls[0][1]
    assert (tags["medgan.split_digest"], tags["medgan.workers"]) == ("5" * 64, 2)
    assert "medgan.retry_of" not in tags


def test_recorder_tags_retry_with_attempt_and_repeated_attempt(assignment, study, recorder):
    tracker = Memory()
    for number in range(2):
        study.ask({})
        fail(study, study.trials[number], "infrastructure", "lost")
    study.ask({})
    listening = recorder(tracker.opened)
    listening.started(replace(assignment(0), number=2))
    assert listening.close(60)
    tags = tracker.calls[0][1]
    assert (tags["medgan.trial"], tags["medgan.attempt"], tags["medgan.retry_of"]) == (2, 3, 1)
    kept = json.loads(tracker.files["provenance.json"])["trial"]
    assert kept == {"number": 2, "root": 0, "attempt": 3, "retry_of": 1}


def test_recorder_values_are_read_back_from_real_store(assignment, study, recorder, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = MlflowStudy(uri, "medgan/pet2ct", artifacts=tmp_path / "artifacts", study="s", key="k")
    trial = assignment(study.ask({}).number)
    listening = recorder(tracking.trial)
    listening.started(trial)
    for number, value in ((1, 0.1 + 0.2), (2, float("nan"))):
        listening.epoch(trial, epoch_of(value, number))
    assert listening.close(60)
    run = read_run(uri, tracking.trial(0).run_id)
    assert validated(run.files["config.json"]) == trial.config
    assert run.history["val/ssim"][1] == 0.1 + 0.2
    assert run.history["val/ssim"][2] != run.history["val/ssim"][2]
    assert run.tags["medgan.data_digest"] == run.files["provenance.json"]["data"]["digest"] == "d" * 64


def test_recorder_close_returns_false_when_store_refuses_run(assignment, study, recorder):
    def refuse(first_attempt, tags, began_ms):
        raise ValueError("no such run")

    listening = recorder(refuse)
    listening.started(assignment(study.ask({}).number))
    assert not listening.close(60)


def test_recorder_ends_first_attempt_before_retry_starts(assignment, study, recorder):
    tracker, trial = Memory(), assignment(study.ask({}).number)
    listening = recorder(tracker.opened)
    listening.started(trial)
    fail(study, study.trials[0], "infrastructure", "lost")
    listening.ended(trial, {"state": "infrastructure"})
    study.ask({})
    listening.started(replace(trial, number=1))
    assert listening.close(60)
    calls = [entry for entry in tracker.calls if entry[0] == "finish" or "medgan.trial" in entry[1]]
    assert [entry[0] for entry in calls] == ["tags", "finish", "tags"]


def test_recorder_stores_reason_of_trial_that_never_started(recorder):
    tracker = Memory()
    listening = recorder(tracker.opened)
    listening.refused(4, "generator.depth 9 is too deep")
    assert listening.close(60)
    assert tracker.calls[0][1]["medgan.reason"] == "generator.depth 9 is too deep"
    assert tracker.calls[-1] == ("finish", "FAILED")


def test_recorder_keeps_nothing_of_ended_trials_in_memory(assignment, study, recorder):
    listening = recorder(Memory().opened)
    for _ in range(3):
        trial = assignment(study.ask({}).number)
        listening.started(trial)
        listening.ended(trial, {"state": "diverged"})
        study.tell(trial.number, 0.1)
    assert listening.close(60)
    assert (listening.runs, listening.attempts, listening.ends) == ({}, {}, [])


def test_recorder_passes_sampled_numbers_to_tracker(assignment, study, recorder):
    tracker = Memory()
    trial = study.ask({})
    trial.suggest_float("loss.lambda_style", 0.5, 0.5)
    trial.suggest_categorical("generator.norm", ["batch"])
    listening = recorder(tracker.opened)
    listening.started(assignment(trial.number))
    assert listening.close(60)
    assert tracker.calls[1][2] == {"loss.lambda_style": 0.5}


def test_recorder_keeps_order_times_and_values_during_outage(assignment, study, facts, tmp_path, monkeypatch):
    monkeypatch.setattr(outage, "PAUSE_S", 0.01)
    tracking = MlflowStudy(f"sqlite:///{tmp_path / 'mlflow.db'}", "medgan/x", artifacts=tmp_path, study="s", key="k")
    trial, available, messages, recorded = assignment(study.ask({}).number), threading.Event(), [], []

    def unavailable_at_first(first_attempt, tags, began_ms):
        if not available.is_set():
            raise ConnectionError("no server")
        return tracking.trial(first_attempt, tags, began_ms)

    listening = Recorder(
        unavailable_at_first,
        study=study,
        task=TASKS["pet2ct"],
        facts=facts,
        recorded=recorded.append,
        say=messages.append,
    )
    began = now_ms()
    listening.started(trial)
    for number in (1, 2, 3):
        listening.epoch(trial, epoch_of(0.1 * number, number))
    listening.ended(trial, {"state": "complete", "reason": ""})
    last_event = now_ms()
    deadline = time.monotonic() + 30
    while not messages and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorded == []
    available.set()
    assert listening.close(60)
    assert messages[0] == "MLflow does not answer; results wait here until it answers"
    assert messages[1].startswith("MLflow answers again, after ")
    run = tracking.client.search_runs([tracking.experiment_id], "tags.`medgan.root` = '0'")[0]
    history = tracking.client.get_metric_history(run.info.run_id, "val/ssim")
    assert [(one.step, one.value) for one in history] == [(1, 0.1), (2, 0.2), (3, 0.1 * 3)]
    assert all(
        began <= moment <= last_event for moment in (run.info.start_time, run.info.end_time, history[0].timestamp)
    )
    assert (run.info.status, run.data.tags["medgan.state"], recorded) == ("FINISHED", "complete", [0])


def test_recorder_of_other_driver_records_stored_provenance(assignment, study, recorder, facts):
    tracker, trial = Memory(), assignment(study.ask({}).number)

    def refuse(first_attempt, tags, began_ms):
        raise ValueError("refused")

    dead = recorder(refuse)
    dead.started(trial)
    assert not dead.close(60)
    later = recorder(tracker.opened, facts=None)
    later.started(trial)
    assert later.close(60)
    kept = json.loads(tracker.files["provenance.json"])
    assert {section: kept[section] for section in facts} == facts
    assert validated(json.loads(tracker.files["config.json"])) == trial.config
    assert tracker.calls[0][1]["medgan.split_digest"] == "5" * 64
