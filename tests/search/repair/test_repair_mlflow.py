"""The repair of MLflow runs that differ from the study, or are missing."""

from medgan.search.repair import examine, repair
from medgan.search.study import KEY
from medgan.tracking.store import STATE_TAG


def test_repair_keeps_run_with_more_epochs_of_two_runs_of_trial(stored, expect_repaired):
    kept = stored.run(1).run_id
    tags = stored.client.get_run(kept).data.tags
    other = stored.client.create_run(stored.experiment, tags=tags).info.run_id
    stored.client.log_metric(other, "epoch", 1, step=1)
    expect_repaired(stored, f"trial 1: MLflow has another run {other} of 1 epochs, should have one")
    assert stored.run(1).run_id == kept
    assert stored.client.get_run(other).info.lifecycle_stage == "deleted"


def test_repair_keeps_run_with_trials_of_two_runs_of_study(stored, expect_repaired):
    kept = stored.run("study").run_id
    tags = stored.client.get_run(kept).data.tags
    stored.client.create_run(stored.experiment, tags=tags)
    expect_repaired(stored, "study: MLflow has another run")
    assert stored.run("study").run_id == kept


def test_repair_ends_runs_of_trials_without_driver(stored, expect_repaired):
    for first_attempt in (0, 3):
        stored.client.update_run(stored.run(first_attempt).run_id, status="RUNNING")
    expect_repaired(
        stored,
        "trial 0: MLflow says complete (RUNNING), should be complete (FINISHED)",
        "trial 3: MLflow says interrupted (RUNNING), should be interrupted (KILLED)",
    )


def test_repair_sets_run_state_from_study(stored, expect_repaired):
    stored.client.set_tag(stored.run(2).run_id, STATE_TAG, "complete")
    stored.client.delete_tag(stored.run(1).run_id, STATE_TAG)
    stored.client.set_terminated(stored.run(3).run_id, "FINISHED")
    expect_repaired(
        stored,
        "trial 2: MLflow says complete (FAILED), should be diverged (FAILED)",
        "trial 1: MLflow says no state (FINISHED), should be pruned (FINISHED)",
        "trial 3: MLflow says interrupted (FINISHED), should be interrupted (KILLED)",
    )


def test_repair_creates_missing_run_of_finished_trial(stored, expect_repaired):
    stored.client.delete_run(stored.run(2).run_id)
    (line,) = expect_repaired(stored, "trial 2: diverged in the study, MLflow has no run of it")
    assert line.endswith(": made from the study, without pictures and losses")
    run, frozen = stored.client.get_run(stored.run(2).run_id), stored.study.trials[2]
    assert (run.info.run_name, run.info.status) == ("#2 s", "FAILED")
    assert run.info.start_time == int(frozen.datetime_start.timestamp() * 1000)
    assert run.info.end_time == int(frozen.datetime_complete.timestamp() * 1000)
    assert run.data.params == {key: str(value) for key, value in frozen.params.items()}
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("medgan.")}
    assert tags == {
        "medgan.study": "s",
        "medgan.study_key": stored.study.user_attrs[KEY],
        "medgan.root": "2",
        "medgan.trial": "2",
        "medgan.state": "diverged",
        "medgan.reason": "loss is nan",
        "medgan.task": "pet2ct",
        "medgan.data_digest": "a" * 64,
        "medgan.made_from": "study database",
    }
    assert run.data.tags["mlflow.parentRunId"] == stored.run("study").run_id


def test_repair_adds_missing_epochs_with_values_of_study(stored, expect_repaired, open_runs):
    stored.client.delete_run(stored.run(0).run_id)
    run = open_runs(stored.place, stored.study).trial(0)
    run.metrics({"val/ssim": 0.3}, 1)
    run.tags({STATE_TAG: "complete"})
    run.finish("FINISHED")
    stored.client.set_terminated(stored.run("study").run_id, "FINISHED")
    expect_repaired(stored, "trial 0: MLflow lacks 3 of its 4 epochs: 2, 3, 4")

    def history(name):
        return {metric.step: metric.value for metric in stored.client.get_metric_history(run.run_id, name)}

    assert history("val/ssim") == {1: 0.3, 2: 0.6, 3: 0.6, 4: 0.7}
    assert history("val/mae_hu") == {4: 90.0}
    assert history("epoch") == {1: 1, 2: 2, 3: 3, 4: 4}


def test_repair_finds_gap_among_epochs(stored, expect_repaired):
    run = stored.runs.add(1, beside=stored.run("study").run_id, tags={STATE_TAG: "pruned"}, params={}, start_ms=None)
    stored.runs.add_epochs(run, {2: {"val/ssim": 0.25}})
    stored.runs.end(run, "FINISHED", "pruned")
    stored.client.delete_run(stored.run(1).run_id)
    expect_repaired(stored, "trial 1: MLflow lacks 1 of its 2 epochs: 1")


def test_repair_deletes_run_of_unknown_trial(stored, expect_repaired, open_runs):
    with open_runs(stored.place, stored.study) as tracking:
        tracking.trial(9).finish("FINISHED")
    expect_repaired(stored, "trial 9: MLflow has a run")
    assert {run.first_attempt for run in stored.runs.found()} == {"study", "0", "1", "2", "3"}


def test_repair_ends_run_of_study_without_driver(stored, expect_repaired):
    stored.client.update_run(stored.run("study").run_id, status="RUNNING")
    expect_repaired(stored, "study: MLflow says RUNNING but no driver runs it, should be KILLED")
    assert stored.run("study").status == "KILLED"


def test_repair_reports_study_without_run_and_creates_none(stored, lines_of):
    for run in stored.runs.found():
        stored.client.delete_run(run.run_id)
    assert lines_of(examine, stored) == (1, ["study: MLflow has no run of it, should have one; cannot be repaired"])
    assert lines_of(repair, stored)[0] == 1
    assert stored.runs.found() == []
