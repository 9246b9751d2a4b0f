"""`medgan reproduce` on a training: it gives the same curve, or names the epochs and the facts that differ."""

import getpass
import json
import math
import re
import socket

import mlflow
import pytest

from medgan.config import flatten, validated
from medgan.data.manifest import read_manifest
from medgan.paths import find_place
from medgan.provenance import code_version
from medgan.tracking.store import read_run
from medgan.workflows.reproduce import ReproduceRequest, reproduce, verdict


def recorded(home, run_id):
    return read_run(f"sqlite:///{home / 'mlflow.db'}", run_id)


def test_run_of_training_records_exact_configuration(home, run_id):
    kept = validated(recorded(home, run_id).files["config.json"])
    params = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}").get_run(run_id).data.params
    assert {path: str(value) for path, value in flatten(kept).items()} == {
        path: value for path, value in params.items() if path != "preset"
    }


def test_run_of_training_records_provenance(home, run_id, dataset_folder):
    run, manifest = recorded(home, run_id), read_manifest(dataset_folder)
    facts = run.files["provenance.json"]
    assert facts["data"] == {"digest": manifest.digest, "split": manifest.split_digest}
    assert facts["code"]["commit"] == code_version()["commit"]
    assert facts["run"] == {"workers": 1, "threads": 1, "device": "cpu", "seed": 0}
    assert facts["versions"]["mlflow"] == mlflow.__version__
    wanted = {"data_digest": manifest.digest, "split_digest": manifest.split_digest, "device": "cpu", "workers": "1"}
    assert {name: run.tags[f"medgan.{name}"] for name in wanted} == wanted
    assert run.tags["medgan.commit"] == facts["code"]["commit"]


def test_provenance_names_no_host_user_or_folder(home, run_id):
    text = json.dumps(recorded(home, run_id).files["provenance.json"])
    assert "/" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_reproduce_gives_same_curve_with_same_code_data_and_threads(medgan_reproduce, home, run_id):
    before = {path.relative_to(home) for path in home.rglob("*")}
    code, output = medgan_reproduce(run_id)
    assert code == 0, output
    for epoch, value in recorded(home, run_id).history["val/ssim"].items():
        assert f"epoch {epoch}/3: val/ssim {value:.10g} then, {value:.10g} now\n" in output
    assert "code, versions, hardware and workers are the same as in the recorded run" in output
    assert f"run {run_id} is reproduced: val/ssim identical in 3 epochs" in output
    left = {path.relative_to(home) for path in home.rglob("*")} - before
    assert {path.parent.name for path in left} <= {"logs"}, "only a log is left behind"


def test_reproduce_changes_nothing_in_mlflow(medgan_reproduce, home, run_id):
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    before = [one.to_dictionary() for one in client.search_runs(experiments)]
    assert medgan_reproduce(run_id)[0] == 0
    assert [one.to_dictionary() for one in client.search_runs(experiments)] == before


def test_reproduce_with_other_setting_names_first_epoch_that_differs(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.schedule": "linear"})  # this learning rate begins to fall in the third epoch
    code, output = medgan_reproduce(run_id)
    assert code == 1, output
    assert f"failed: run {run_id} is not reproduced: val/ssim differs from epoch 3 by up to " in output
    assert "--rtol 0.0001. [E-REPRODUCE-01]" in output
    assert medgan_reproduce(run_id, "--rtol", 1)[0] == 0


def test_reproduce_compares_only_requested_epochs(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.schedule": "linear"})
    code, output = medgan_reproduce(run_id, "--epochs", 2)
    assert code == 0, output
    assert "identical in 2 epochs" in output


def test_reproduce_trains_only_recorded_epochs_of_trial_stopped_early(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"train.epochs": 9})
    code, output = medgan_reproduce(run_id)
    assert code == 0, output
    assert f"{run_id}, 3 epochs of 9 at most" in output
    assert "identical in 3 epochs" in output


def test_reproduce_fails_if_training_diverges(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.generator_lr": 1e30})
    code, output = medgan_reproduce(run_id)
    assert code == 1
    assert re.search(r"^failed: .*epoch 1 .*(is nan|is inf|not finite).* \[E-REPRODUCE-10\]$", output, re.M), output


def test_reproduce_prints_line_for_each_difference(medgan_reproduce, artifact, run_id):
    artifact("provenance.json", {"versions.torch": "1.0", "code.commit": "f00", "hardware.cpu": "Z80"})
    code, output = medgan_reproduce(run_id, "--epochs", 1)
    assert code == 0, output
    for line in ("versions.torch: 1.0 then, ", "code.commit: f00 then, ", "hardware.cpu: Z80 then, "):
        assert f"\n{line}" in output
    assert "are the same as in the recorded run" not in output


def test_reproduce_notes_schedule_that_followed_clock(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.schedule": "cosine", "train.minutes": 60})
    output = medgan_reproduce(run_id, "--epochs", 1)[1]
    assert "train.minutes: its schedule followed the clock" in output


def test_reproduce_notes_measured_speed(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"train.speed": "measured"})
    output = medgan_reproduce(run_id, "--epochs", 1)[1]
    assert "train.speed: how a step is computed fastest is measured anew, and may round otherwise" in output


def test_reproduce_compares_run_without_provenance(medgan_reproduce, home, run_id):
    (path,) = (home / "mlflow-artifacts").rglob("provenance.json")
    path.unlink()
    code, output = medgan_reproduce(run_id, "--epochs", 1)
    assert code == 0, output
    assert "its code, versions and hardware are not recorded" in output


def test_reproduce_stopped_by_ctrl_c_keeps_nothing(medgan_reproduce, home, run_id, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medgan.workflows.training_runner.train_epoch", interrupted)
    code, output = medgan_reproduce(run_id)
    assert code == 130
    assert output.endswith("\nStopped. Nothing is kept.\n")
    assert not list(home.glob("reproduce-*"))


@pytest.mark.parametrize(
    ("now", "expected", "gap"),
    [
        ([0.5, 0.8], "identical in 2 epochs", 0.0),
        ([0.5, 0.8 * (1 + 5e-7)], "equal within 1e-06 in 2 epochs", 5e-7),
        ([0.5 * (1 + 5e-7), 0.4], "differs from epoch 2 by up to 0.4 (relative 0.5)", 0.5),
        ([0.4, 0.8], "differs from epoch 1 by up to 0.1 (relative 0.2)", 0.2),
        ([math.nan, 0.8], "differs from epoch 1 by up to nan (relative inf)", math.inf),
    ],
)
def test_verdict_names_first_epoch_that_differs_and_difference(now, expected, gap):
    found, largest = verdict({1: 0.5, 2: 0.8}, now)
    assert found == expected
    assert largest == pytest.approx(gap, rel=1e-6)


def test_verdict_ignores_epochs_that_were_not_recorded():
    assert verdict({2: math.nan}, [0.3, math.nan]) == ("identical in 1 epoch", 0.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_reproduce_on_two_workers_equals_training_on_two_workers(dicom, tmp_path, capfd, trained):
    run_id = trained(dicom, tmp_path / "home", workers=2)
    capfd.readouterr()
    place = find_place(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")
    assert reproduce(ReproduceRequest(run_id, place)).verdict == "identical in 3 epochs"
