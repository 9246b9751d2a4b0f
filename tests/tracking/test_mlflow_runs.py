"""MLflow runs on a real SQLite store are found again, never made twice, and never left running."""

import pytest
from refusal import refusal

from medgan.errors import InputError
from medgan.tracking import store
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.store import STATE_TAG, STUDY_ROOT
from medgan.tracking.study_runs import StudyRuns


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def open_study(folder, request):
    """Opens a study of this test; each call acts as a new driver."""

    def opened():
        return MlflowStudy(
            f"sqlite:///{folder / 'mlflow.db'}",
            "medgan/pet2ct",
            artifacts=folder / "artifacts",
            study="s",
            key=request.node.name,
        )

    return opened


@pytest.fixture
def runs_of(folder, request):
    """Reads the runs of the test's study without making any."""
    return lambda: StudyRuns(f"sqlite:///{folder / 'mlflow.db'}", study="s", key=request.node.name)


def values(study, run, name):
    return [(metric.step, metric.value) for metric in study.client.get_metric_history(run.run_id, name)]


def test_trial_run_is_child_of_study_run(open_study):
    study = open_study()
    trial = study.trial(3)
    data = study.client.get_run(trial.run_id)
    assert data.data.tags["mlflow.parentRunId"] == study.run.run_id
    assert data.info.run_name == "#3 s"


def test_second_driver_finds_runs_again_and_repeats_no_step(open_study):
    first = open_study().trial(0)
    first.metrics({"val/ssim": 0.3}, 1)
    study = open_study()
    again = study.trial(0)
    assert again.run_id == first.run_id
    for step, value in ((1, 0.9), (2, 0.5)):
        again.metrics({"val/ssim": value}, step)
    assert values(study, again, "val/ssim") == [(1, 0.3), (2, 0.5)]


def test_parameters_recorded_twice_keep_first_value(open_study):
    study = open_study()
    trial = study.trial(0)
    trial.params({"generator.num_blocks": 2})
    trial.params({"generator.num_blocks": 3, "train.seed": 0})
    assert study.client.get_run(trial.run_id).data.params == {"generator.num_blocks": "2", "train.seed": "0"}


def test_repeated_calls_after_lost_answer_record_once(open_study):
    study = open_study()
    trial, again = study.trial(0, {"medgan.trial": 0}, 1000), study.trial(0, {"medgan.trial": 1})
    for run in (trial, again):  # a call that succeeded is repeated where its answer was lost
        run.params({"train.seed": 0}, {"loss.lambda_l1": 10.0})
        run.metrics({"val/ssim": float("nan"), "val/mse": 2.0}, 1, 5000)
    assert again.run_id == trial.run_id
    assert values(study, trial, "moved/loss.lambda_l1") == [(0, 10.0)]
    assert values(study, trial, "val/mse") == [(1, 2.0)]
    assert len(values(study, trial, "val/ssim")) == 1
    found = study.client.get_run(trial.run_id)
    assert (found.info.start_time, found.data.tags["medgan.trial"]) == (1000, "1")


def test_searched_setting_sorts_and_filters_as_number(open_study):
    study = open_study()
    for first_attempt, value in enumerate((10.0, 9.0, 100.0)):
        study.trial(first_attempt).params({"loss.lambda_l1": value}, {"loss.lambda_l1": value})
    key = f"tags.`medgan.study_key` = '{study.key}'"
    query = f"{key} and metrics.`moved/loss.lambda_l1` > 9.5"
    found = study.client.search_runs([study.experiment_id], query, order_by=["metrics.`moved/loss.lambda_l1` DESC"])
    assert [run.data.tags["medgan.root"] for run in found] == ["2", "0"]


def test_links_lead_to_trial_run_study_file_and_sorted_trials(open_study):
    study = open_study()
    trial, here = study.trial(3), f"#/experiments/{study.experiment_id}/runs"
    assert study.link("best", 3) == f"[best]({here}/{trial.run_id})"
    report = f"[report]({here}/{study.run.run_id}/artifacts/report/report.html)"
    assert study.link("report", file="report/report.html") == report
    sorted_link = study.link_to_trials("all", "val/best_ssim", ascending=False)
    assert "orderByKey=metrics.%60val%2Fbest_ssim%60&orderByAsc=false" in sorted_link
    assert study.key in sorted_link


def test_close_orphans_ends_runs_of_dead_driver_by_their_state(open_study):
    dead = open_study()
    runs = [dead.trial(first_attempt) for first_attempt in (0, 1)]
    open_study().close_orphans({0: "FINISHED"})
    assert [dead.client.get_run(run.run_id).info.status for run in runs] == ["FINISHED", "KILLED"]


@pytest.mark.parametrize(("given_up", "status"), [(False, "KILLED"), (True, "RUNNING")])
def test_study_run_is_closed_unless_store_was_given_up(open_study, given_up, status):
    study = open_study()
    with pytest.raises(KeyboardInterrupt), study:
        study.go_on()
        if given_up:
            study.give_up()
        raise KeyboardInterrupt
    assert study.client.get_run(study.run.run_id).info.status == status


def test_close_orphans_marks_unfinished_trial_interrupted(open_study, runs_of):
    open_study().trial(0)
    open_study().close_orphans({})
    assert [(run.state, run.status) for run in runs_of().found() if run.first_attempt == "0"] == [
        ("interrupted", "KILLED")
    ]


def test_close_orphans_reads_every_page_of_runs(open_study, runs_of, monkeypatch):
    monkeypatch.setattr(store, "PAGE", 2)
    dead = open_study()
    for first_attempt in range(5):
        dead.trial(first_attempt)
    open_study().close_orphans({})
    assert [run.status for run in runs_of().found() if run.first_attempt != STUDY_ROOT] == ["KILLED"] * 5


def test_deleted_trial_run_is_not_found_again(open_study, runs_of):
    study = open_study()
    first = study.trial(0)
    study.client.delete_run(first.run_id)
    again = study.trial(0)
    assert again.run_id != first.run_id
    assert study.trial(0).run_id == again.run_id
    assert [run.run_id for run in runs_of().found() if run.first_attempt == "0"] == [again.run_id]


def test_deleted_study_run_is_not_found_again(open_study):
    study = open_study()
    study.client.delete_run(study.run.run_id)
    assert open_study().run.run_id != study.run.run_id


def test_mlflow_study_refuses_deleted_experiment(folder):
    def opened():
        return MlflowStudy(f"sqlite:///{folder / 'mlflow.db'}", "medgan/x", artifacts=folder, study="s", key="k")

    study = opened()
    study.client.delete_experiment(study.experiment_id)
    with pytest.raises(InputError, check=refusal("E-MLFLOW-02", name="medgan/x", experiment_id=study.experiment_id)):
        opened()


def test_found_lists_runs_with_recorded_state_and_epochs(open_study, runs_of):
    study = open_study()
    trial = study.trial(3)
    for step in (1, 2):
        trial.metrics({"val/ssim": 0.5}, step)
    trial.tags({STATE_TAG: "pruned"})
    trial.finish("FINISHED")
    own, run = runs_of().found()
    assert (own.first_attempt, own.status, own.parent) == (STUDY_ROOT, "RUNNING", "")
    assert (run.first_attempt, run.parent, run.state, run.status) == ("3", study.run.run_id, "pruned", "FINISHED")
    assert run.epochs == {1, 2}


def test_found_lists_no_run_of_other_study(open_study, folder):
    open_study().trial(0)
    assert StudyRuns(f"sqlite:///{folder / 'mlflow.db'}", study="s", key="other").found() == []


def test_end_keeps_time_of_run_that_had_ended(open_study, runs_of):
    study = open_study()
    trial = study.trial(0)
    study.client.set_terminated(trial.run_id, "FINISHED", 1234567)
    runs_of().end(trial.run_id, "FAILED", "diverged")
    info = study.client.get_run(trial.run_id).info
    assert (info.status, info.end_time) == ("FAILED", 1234567)


def test_reopened_run_knows_time_of_its_end(open_study):
    study = open_study()
    assert study.trial(0).ended_ms is None
    study.trial(0).finish("FINISHED", 1234567)
    again = study.trial(0)
    again.finish("FINISHED", again.ended_ms)
    assert study.client.get_run(again.run_id).info.end_time == 1234567


def test_merge_moves_trials_of_doubled_study_run(open_study, runs_of):
    study = open_study()
    trial = study.trial(0)
    other = study.client.create_run(study.experiment_id).info.run_id
    runs_of().merge(study.run.run_id, into=other)
    assert [(run.run_id, run.parent) for run in runs_of().found()] == [(trial.run_id, other)]


def test_study_runs_refuse_missing_store_and_make_none(tmp_path):
    with pytest.raises(InputError, check=refusal("E-MLFLOW-07")):
        StudyRuns(f"sqlite:///{tmp_path / 'mlflow.db'}", study="s", key="k")
    assert list(tmp_path.iterdir()) == []


def test_study_runs_make_no_experiment(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = MlflowStudy(uri, "elsewhere", artifacts=tmp_path, study="s", key="k")
    assert StudyRuns(uri, study="s", key="k").found() == []
    assert [one.name for one in study.client.search_experiments()] == ["elsewhere", "Default"]


def test_study_runs_refuse_unknown_kind_of_store():
    with pytest.raises(InputError, check=refusal("E-MLFLOW-04", uri="nosuch://x")):
        StudyRuns("nosuch://x", study="s", key="k")


def test_artifacts_are_stored_in_output_folder(open_study, folder, tmp_path):
    study = open_study()
    (tmp_path / "picture.png").write_bytes(b"png")
    study.run.artifact(tmp_path / "picture.png", "pictures")
    assert list((folder / "artifacts" / "medgan" / "pet2ct").rglob("pictures/picture.png"))


def test_dataset_is_recorded_by_digest(open_study):
    study = open_study()
    study.dataset("pet2ct", "d" * 64, profile="9 train patients")
    (noted,) = study.client.get_run(study.run.run_id).inputs.dataset_inputs
    assert noted.dataset.digest == "d" * 36


def test_mlflow_study_refuses_store_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, check=refusal("E-MLFLOW-04", uri="nosuch://x")):
        MlflowStudy("nosuch://x", "medgan/pet2ct", artifacts=tmp_path, study="s", key="k")
