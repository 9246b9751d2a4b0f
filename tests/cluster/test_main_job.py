"""The main job on real Ray, MLflow, Optuna and DICOM: it survives a killed worker, Ctrl-C, and trials that diverge."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pydicom
import pytest
from open_ports import is_loopback, listening_addresses
from safetensors.torch import load_file, save_file

LIMIT_S = 200
SPACE = """
set:
  data.size: 32
  generator.base_channels: 4
  discriminator.base_channels: 4
  extractor.weights: random
  loss.style_blocks: [1]
  loss.content_blocks: [1]
  train.epochs: 4
  train.batch_size: 8
search:
  generator.num_blocks: {int: [1, 2]}
  optim.generator_lr: {log: [1.0e-3, 2.0e-3]}
scheduler: {grace_epochs: 4}
trials: 3
"""
DIVERGING = SPACE.replace("{log: [1.0e-3, 2.0e-3]}", "{log: [1.0e+20, 1.0e+22]}").replace("trials: 3", "trials: 2")


def study_of(home: Path) -> optuna.Study:
    storage = optuna.storages.RDBStorage(f"sqlite:///{home / 'study.db'}")
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage)


def trials_of(home: Path) -> list[optuna.trial.FrozenTrial]:
    return study_of(home).trials


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, search, workers_of, processes_of):
    """A finished job, one of whose workers was killed in its first trial; `listening`: where its processes listened."""
    job = search(tmp_path_factory.mktemp("disturbed") / "home", SPACE)
    job.until(r"trial 0: epoch 2/4")
    job.listening = listening_addresses(one.pid for one in processes_of(job.home))
    first, last = workers_of(job.home)
    last.kill()
    assert job.end() == 0, job.text
    return job


def runs_of(home: Path):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medgan/pet2ct-phantom")
    runs = client.search_runs([experiment.experiment_id])
    return client, runs


@pytest.mark.timeout(LIMIT_S)
def test_search_ends_all_trials_after_a_worker_was_killed(disturbed):
    assert [trial.state.name for trial in trials_of(disturbed.home)] == ["COMPLETE"] * 3
    assert re.search(r"trial 0: .* the worker group restarts", disturbed.text)
    (went_on,) = re.findall(r"trial 0: continues after epoch (\d), from its checkpoint", disturbed.text)
    assert int(went_on) >= 2
    (log,) = (disturbed.home / "logs").glob("*.log")
    assert "from its checkpoint" in log.read_text()


def test_search_listens_on_loopback_only(disturbed):
    assert len(disturbed.listening) > 5  # the control store, the node's manager, its agents, the dashboard
    assert {one for one in disturbed.listening if not is_loopback(one[0])} == set()


def test_search_writes_for_its_owner_only(disturbed):
    written = [path for path in disturbed.home.rglob("*") if path.is_file()]
    assert {"mlflow.db", "study.db", "generator.safetensors", "model.json"} <= {path.name for path in written}
    public = {path.name for path in written if path.stat().st_mode & 0o077}
    assert public <= {"pyfunc.py"}  # MLflow copies medgan's own code with its mode
    token = Path("~/.ray/auth_token").expanduser()
    assert token.stat().st_mode & 0o077 == 0


def test_search_records_every_epoch_exactly_once(disturbed):
    for trial in trials_of(disturbed.home):
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
    client, runs = runs_of(disturbed.home)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 3
    for run in children:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/ssim")]
        assert steps == [1, 2, 3, 4]


def test_search_logs_parameters_losses_metrics_pictures_and_provenance(disturbed):
    client, runs = runs_of(disturbed.home)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if "mlflow.parentRunId" not in run.data.tags:
            continue
        assert {"loss.lambda_perceptual", "generator.num_blocks", "discriminator.patch"} <= run.data.params.keys()
        for term in ("adversarial", "perceptual", "style", "content"):
            assert {f"loss/generator/{term}", f"loss/generator/{term}_weighted"} <= run.data.metrics.keys()
        assert {"val/ssim", "val/psnr", "val/mse", "val/mae_hu", "val/mae_hu_body"} <= run.data.metrics.keys()
        assert {"medgan.data_digest", "medgan.commit", "medgan.state"} <= run.data.tags.keys()
        assert [file.path for file in client.list_artifacts(run.info.run_id, "pictures")] == ["pictures/validation.png"]


def test_search_registers_best_trial_and_prints_it_again_at_once(disturbed, search):
    assert re.search(r"Registered medgan-pet2ct-phantom version 1 as challenger", disturbed.text)
    again = search(disturbed.home, SPACE)
    assert again.end() == 0
    assert "3 of 3 trials done" in again.text
    assert "Registered medgan-pet2ct-phantom version 1" in again.text
    assert "starting Ray" not in again.text
    assert {run.info.status for run in runs_of(disturbed.home)[1]} == {"FINISHED"}


def test_registered_model_translates_a_phantom(disturbed, tmp_path):
    source = disturbed.home / "phantoms" / "pet2ct" / "PHANTOM-0002" / "PT"
    subprocess.run(
        [
            *[sys.executable, "-m", "medgan.cli.main", "translate", str(source), str(tmp_path / "out")],
            *["--model", "models:/medgan-pet2ct-phantom@challenger", "--output", str(disturbed.home)],
        ],
        check=True,
        timeout=100,
    )
    written = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert len(written) == len(list(source.iterdir()))
    for image in written:
        assert (image.Modality, image.SyntheticData, image.PatientID) == ("CT", "YES", "PHANTOM-0002")
        assert "SYNTHETIC - NOT FOR DIAGNOSIS" in image.SeriesDescription


def test_search_names_no_patient_outside_dicom(disturbed):
    for path in disturbed.home.rglob("*"):
        if path.is_file() and "phantoms" not in path.relative_to(disturbed.home).parts:
            assert b"PHANTOM-00" not in path.read_bytes(), path
            assert "PHANTOM-00" not in str(path)


@pytest.mark.timeout(LIMIT_S)
def test_search_registers_no_generator_with_other_value_than_in_study(disturbed, search):
    """The last step of the finished search is done again, with the best trial's file changed."""
    study = study_of(disturbed.home)
    outcome = study.user_attrs["outcome"]
    (weights,) = disturbed.home.glob(f"checkpoints/*/{json.loads(outcome)['root']:04d}/best.safetensors")
    kept = weights.read_bytes()
    study.set_user_attr("outcome", None)
    save_file({name: 1.5 * one for name, one in load_file(weights).items()}, weights)
    job = search(disturbed.home, SPACE)
    code = job.end()
    study.set_user_attr("outcome", outcome)
    weights.write_bytes(kept)
    assert (code, "[E-SEARCH-05]" in job.text, "starting Ray" in job.text) == (1, True, True), job.text
    client, _ = runs_of(disturbed.home)
    assert len(client.search_model_versions("name='medgan-pet2ct-phantom'")) == 1


@pytest.mark.timeout(2 * LIMIT_S)
def test_search_stops_within_15_s_of_ctrl_c_and_continues_later(tmp_path, search, workers_of):
    job = search(tmp_path / "home", SPACE)
    job.until(r"trial 0: epoch 2/4")
    began = time.monotonic()
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.text
    assert time.monotonic() - began < 15
    assert "the same command goes on from there" in job.text
    assert not workers_of(job.home)
    again = search(tmp_path / "home", SPACE)
    assert again.end() == 0, again.text
    assert re.search(r"trial 0: continues after epoch [23], from its checkpoint", again.text)
    states = [trial.state.name for trial in trials_of(job.home)]
    assert states.count("COMPLETE") == 3
    assert len(runs_of(job.home)[1]) == 4


@pytest.mark.timeout(LIMIT_S)
def test_search_fails_when_all_trials_diverge(tmp_path, search):
    job = search(tmp_path / "home", DIVERGING)
    assert job.end() == 1, job.text
    assert "[E-SEARCH-02]" in job.text
    for trial in trials_of(job.home):
        assert (trial.state.name, trial.user_attrs["failure"]) == ("FAIL", "diverged")
        assert "is nan" in trial.user_attrs["reason"] or "not finite" in trial.user_attrs["reason"]
    statuses = {run.data.tags.get("medgan.state"): run.info.status for run in runs_of(job.home)[1]}
    assert statuses["diverged"] == "FAILED"
