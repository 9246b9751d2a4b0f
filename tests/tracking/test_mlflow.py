"""MLflow runs on a real SQLite store: found again, never doubled, never left running."""

import pytest

from medgan.errors import InputError
from medgan.tracking.mlflow import MlflowStudy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def open_study(folder, request):
    """Opens the study named after the test; each call is a new driver."""

    def opened():
        return MlflowStudy(
            f"sqlite:///{folder / 'mlflow.db'}",
            "medgan/pet2ct",
            artifacts=folder / "artifacts",
            study="s",
            key=request.node.name,
        )

    return opened


def values(study, run, name):
    return [(metric.step, metric.value) for metric in study.client.get_metric_history(run.run_id, name)]


def test_trials_are_children_of_the_studys_run(open_study):
    study = open_study()
    trial = study.trial(3)
    data = study.client.get_run(trial.run_id)
    assert data.data.tags["mlflow.parentRunId"] == study.run.run_id
    assert data.info.run_name.endswith("#3")


def test_a_second_driver_finds_the_runs_again_and_doubles_no_step(open_study):
    first = open_study().trial(0)
    first.metrics({"val/ssim": 0.3}, 1)
    study = open_study()
    again = study.trial(0)
    assert again.run_id == first.run_id
    for step, value in ((1, 0.9), (2, 0.5)):
        again.metrics({"val/ssim": value}, step)
    assert values(study, again, "val/ssim") == [(1, 0.3), (2, 0.5)]


def test_parameters_told_twice_are_kept_as_they_were(open_study):
    study = open_study()
    trial = study.trial(0)
    trial.params({"generator.num_blocks": 2})
    trial.params({"generator.num_blocks": 3, "train.seed": 0})
    assert study.client.get_run(trial.run_id).data.params == {"generator.num_blocks": "2", "train.seed": "0"}


def test_runs_a_dead_driver_left_going_are_closed_honestly(open_study):
    dead = open_study()
    runs = [dead.trial(root) for root in (0, 1)]
    open_study().close_orphans({0: "FINISHED"})
    assert [dead.client.get_run(run.run_id).info.status for run in runs] == ["FINISHED", "KILLED"]


def test_artifacts_lie_below_the_output_folder_not_the_current_one(open_study, folder, tmp_path):
    study = open_study()
    (tmp_path / "picture.png").write_bytes(b"png")
    study.run.artifact(tmp_path / "picture.png", "pictures")
    assert list((folder / "artifacts" / "medgan" / "pet2ct").rglob("pictures/picture.png"))


def test_a_data_set_is_noted_by_its_digest(open_study):
    study = open_study()
    study.dataset("pet2ct", "d" * 64, profile="9 train patients")
    (noted,) = study.client.get_run(study.run.run_id).inputs.dataset_inputs
    assert noted.dataset.digest == "d" * 36


def test_a_store_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match="--tracking-uri nosuch://.*: cannot open"):
        MlflowStudy("nosuch://x", "medgan/pet2ct", artifacts=tmp_path, study="s", key="k")
