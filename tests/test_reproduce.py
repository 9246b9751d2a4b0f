"""`medgan reproduce` on real trainings of phantoms: the same curve again, and what stands in its way."""

import getpass
import json
import math
import re
import shutil
import socket
import sys
from pathlib import Path

import mlflow
import pytest
from rich.console import Console

from medgan import cli_runs
from medgan.cli import run
from medgan.config import flatten, validated
from medgan.data.manifest import read_manifest
from medgan.data.phantoms import write_phantoms
from medgan.place import find_place
from medgan.provenance import code_version
from medgan.reproduce import ReproduceRequest, reproduce, verdict
from medgan.tasks import TASKS
from medgan.tracking.mlflow import MlflowStudy
from medgan.tracking.store import read_run
from medgan.train import TrainRequest, train

SMALL = {
    "data.size": 32,
    "generator.base_channels": 4,
    "discriminator.base_channels": 4,
    "discriminator.patch": 16,
    "optim.schedule": "constant",
    "train.epochs": 3,
}
"""pix2pix: its dropout draws random numbers in every step."""


def trained(dicom, home, workers=1):
    """Trains in `home`; the run's id."""
    uri = f"sqlite:///{home / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        request = TrainRequest(
            TASKS["pet2ct"], find_place(home, uri), "pix2pix", str(dicom), quick=True, workers=workers, overrides=SMALL
        )
        train(request, Console())
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return found.info.run_id


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=8, matrix=64)


@pytest.fixture(scope="module")
def pristine(dicom, tmp_path_factory):
    """The output folder of a training, and its run's id; tests get a copy."""
    home = tmp_path_factory.mktemp("pristine") / "home"
    return home, trained(dicom, home)


@pytest.fixture
def home(pristine, tmp_path):
    """The output folder; what a test changes in its data sets and artifacts is put back."""
    folder, changing = pristine[0], ("datasets", "mlflow-artifacts")
    for name in changing:
        shutil.copytree(folder / name, tmp_path / "kept" / name)
    yield folder
    for name in changing:
        shutil.rmtree(folder / name)
        (tmp_path / "kept" / name).rename(folder / name)


@pytest.fixture
def run_id(pristine):
    return pristine[1]


@pytest.fixture
def medgan_reproduce(home, monkeypatch, capfd):
    """Runs the command on the output folder: its exit code, and what it wrote."""

    def called(*arguments) -> tuple[int, str]:
        uri = f"sqlite:///{home / 'mlflow.db'}"
        fixed = ["--output", str(home), "--tracking-uri", uri]
        monkeypatch.setattr(sys, "argv", ["medgan", *fixed, *map(str, arguments)])
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run(cli_runs.app)
        told = capfd.readouterr()
        return stop.value.code or 0, told.out + told.err

    return called


@pytest.fixture
def artifact(home):
    """Finds a JSON file of the run; called with values by dotted path, it writes them there."""

    def found(name: str, values: dict) -> None:
        (path,) = (home / "mlflow-artifacts").rglob(name)
        tree = json.loads(path.read_text())
        for dotted, value in values.items():
            section, leaf = dotted.split(".")
            tree[section][leaf] = value
        path.write_text(json.dumps(tree))

    return found


def recorded(home, run_id):
    return read_run(f"sqlite:///{home / 'mlflow.db'}", run_id)


def dataset_of(home) -> Path:
    (manifest,) = home.glob("datasets/*/dataset.json")
    return manifest.parent


def test_a_training_s_run_carries_its_configuration_exactly(home, run_id):
    kept = validated(recorded(home, run_id).files["config.json"])
    params = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}").get_run(run_id).data.params
    assert {path: str(value) for path, value in flatten(kept).items()} == {
        path: value for path, value in params.items() if path != "preset"
    }


def test_a_training_s_run_carries_what_made_it(home, run_id):
    told, manifest = recorded(home, run_id), read_manifest(dataset_of(home))
    facts = told.files["provenance.json"]
    assert facts["data"] == {"digest": manifest.digest, "split": manifest.split_digest}
    assert facts["code"]["commit"] == code_version()["commit"]
    assert facts["run"] == {"workers": 1, "threads": 1, "device": "cpu", "seed": 0}
    assert facts["versions"]["mlflow"] == mlflow.__version__
    wanted = {"data_digest": manifest.digest, "split_digest": manifest.split_digest, "device": "cpu", "workers": "1"}
    assert {name: told.tags[f"medgan.{name}"] for name in wanted} == wanted
    assert told.tags["medgan.commit"] == facts["code"]["commit"]


def test_what_made_a_run_names_no_host_no_user_and_no_folder(home, run_id):
    text = json.dumps(recorded(home, run_id).files["provenance.json"])
    assert "/" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_same_code_data_and_threads_give_the_same_curve_again(medgan_reproduce, home, run_id):
    before = {path.relative_to(home) for path in home.rglob("*")}
    code, said = medgan_reproduce(run_id)
    assert code == 0, said
    for epoch, value in recorded(home, run_id).history["val/ssim"].items():
        assert f"epoch {epoch}/3: val/ssim {value:.10g} then, {value:.10g} now\n" in said
    assert "code, versions, hardware and workers are those of then" in said
    assert f"run {run_id} is reproduced: val/ssim identical in 3 epochs" in said
    left = {path.relative_to(home) for path in home.rglob("*")} - before
    assert {path.parent.name for path in left} <= {"logs"}, "nothing but a log is left behind"


def test_reproducing_tells_mlflow_nothing(medgan_reproduce, home, run_id):
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    before = [one.to_dictionary() for one in client.search_runs(experiments)]
    assert medgan_reproduce(run_id)[0] == 0
    assert [one.to_dictionary() for one in client.search_runs(experiments)] == before


def test_another_setting_gives_another_curve_whose_first_differing_epoch_is_named(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.schedule": "linear"})  # which begins to fall with the third epoch
    code, said = medgan_reproduce(run_id)
    assert code == 1, said
    assert f"failed: run {run_id} is not reproduced: val/ssim differs from epoch 3 by up to " in said
    assert "--rtol 0.0001" in said
    assert medgan_reproduce(run_id, "--rtol", 1)[0] == 0


def test_only_as_many_epochs_as_were_asked_for_are_compared(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.schedule": "linear"})
    code, said = medgan_reproduce(run_id, "--epochs", 2)
    assert code == 0, said
    assert "identical in 2 epochs" in said


def test_a_trial_that_was_stopped_early_is_trained_for_the_epochs_it_had(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"train.epochs": 9})
    code, said = medgan_reproduce(run_id)
    assert code == 0, said
    assert f"{run_id}, 3 epochs of 9 at most" in said
    assert "identical in 3 epochs" in said


def test_a_training_that_now_diverges_is_not_reproduced(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.generator_lr": 1e30})
    code, said = medgan_reproduce(run_id)
    assert code == 1
    assert "failed: not reproduced: epoch 1, which the run recorded, now ends: " in said


def test_what_differs_from_then_is_told_a_line_each(medgan_reproduce, artifact, run_id):
    artifact("provenance.json", {"versions.torch": "1.0", "code.commit": "f00", "hardware.cpu": "Z80"})
    code, said = medgan_reproduce(run_id, "--epochs", 1)
    assert code == 0, said
    for line in ("versions.torch: 1.0 then, ", "code.commit: f00 then, ", "hardware.cpu: Z80 then, "):
        assert f"\n{line}" in said
    assert "are those of then" not in said


def test_a_schedule_that_followed_the_clock_is_pointed_out(medgan_reproduce, artifact, run_id):
    artifact("config.json", {"optim.schedule": "cosine", "train.minutes": 60})
    said = medgan_reproduce(run_id, "--epochs", 1)[1]
    assert "train.minutes: its schedule followed the clock" in said


def test_a_run_without_provenance_is_compared_all_the_same(medgan_reproduce, home, run_id):
    (path,) = (home / "mlflow-artifacts").rglob("provenance.json")
    path.unlink()
    code, said = medgan_reproduce(run_id, "--epochs", 1)
    assert code == 0, said
    assert "its code, versions and hardware are not recorded" in said


def test_a_data_set_that_is_not_there_is_named_by_its_digest(medgan_reproduce, home, run_id, tmp_path):
    digest = read_manifest(dataset_of(home)).digest
    moved = dataset_of(home).rename(tmp_path / "elsewhere")
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: the run was trained on the data set of digest {digest}; it is not below {home / 'datasets'}" in said
    code, said = medgan_reproduce(run_id, "--epochs", 1, "--data", moved)
    assert code == 0, said
    code, said = medgan_reproduce(run_id, "--data", tmp_path)
    assert code == 2
    assert f"digest {digest}; it is not {tmp_path}" in said


def test_a_data_set_whose_images_changed_is_refused(medgan_reproduce, home, run_id):
    folder = dataset_of(home)
    path = folder / read_manifest(folder).patients[0].folder / "source.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: {path}: the data set of digest {read_manifest(folder).digest} has changed: expected sha256" in said


def test_a_data_set_whose_description_changed_is_refused(medgan_reproduce, home, run_id):
    (state,) = (dataset_of(home) / "states").iterdir()
    tree = json.loads(state.read_text())
    tree["patients"][0]["role"] = "test"
    state.write_text(json.dumps(tree))
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: {state}: the data set has changed: its description is not that of digest {state.stem}" in said


def test_a_run_of_another_split_is_refused(medgan_reproduce, home, run_id):
    client, split = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}"), read_manifest(dataset_of(home)).split_digest
    client.set_tag(run_id, "medgan.split_digest", "abc")
    code, said = medgan_reproduce(run_id)
    client.set_tag(run_id, "medgan.split_digest", split)
    assert code == 2
    assert "expected the patients split as the run had them (digest abc); they are split otherwise" in said
    assert f"({split})" in said


def test_an_unknown_run_is_refused(medgan_reproduce, home):
    code, said = medgan_reproduce("0" * 32)
    assert code == 2
    assert f"error: run {'0' * 32}: not found in sqlite:///{home / 'mlflow.db'}: " in said


def test_a_store_that_is_not_there_is_refused_and_not_made(medgan_reproduce, run_id, tmp_path):
    code, said = medgan_reproduce(run_id, "--tracking-uri", f"sqlite:///{tmp_path / 'none.db'}")
    assert code == 2
    assert f"error: --tracking-uri sqlite:///{tmp_path / 'none.db'}: there is no such store" in said
    assert not (tmp_path / "none.db").exists()


def test_a_run_without_a_configuration_is_refused(medgan_reproduce, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = MlflowStudy(uri, "medgan/pet2ct-phantom", artifacts=tmp_path / "artifacts", study="s", key="k")
    code, said = medgan_reproduce(study.run.run_id, "--tracking-uri", uri)
    assert code == 2
    assert f"run {study.run.run_id}: expected the configuration of a training (config.json); it has none" in said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim.warp": 1}, "its configuration is not one of this medgan: setting optim.warp"),
        ({"metrics.select": "val/psnr_body_2"}, "expected val/psnr_body_2 of one epoch or more, to compare with"),
    ],
)
def test_a_configuration_that_says_nothing_here_is_refused(medgan_reproduce, artifact, run_id, values, message):
    artifact("config.json", values)
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: run {run_id}: {message}" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", 9), "--epochs 9: .* recorded 3, and more cannot be compared"),
        (("--epochs", 0), "--epochs: expected 1 or more; got 0"),
        (("--workers", 0), "--workers: expected 1 or more; got 0"),
        (("--workers", 3), "train.batch_size: expected a multiple of the 3 workers; got 8"),
        (("--rtol", -1), "Invalid value for '--rtol'"),
    ],
)
def test_options_that_cannot_be_are_refused(medgan_reproduce, run_id, arguments, message):
    code, said = medgan_reproduce(run_id, *arguments)
    assert code == 2
    assert re.search(message, said), said


def test_ctrl_c_says_that_nothing_is_kept(medgan_reproduce, home, run_id, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medgan.train.train_epoch", interrupted)
    code, said = medgan_reproduce(run_id)
    assert code == 130
    assert said.endswith("\nStopped. Nothing is kept.\n")
    assert not list(home.glob("reproduce-*"))


@pytest.mark.parametrize(
    ("now", "said", "gap"),
    [
        ([0.5, 0.8], "identical in 2 epochs", 0.0),
        ([0.5, 0.8 * (1 + 5e-7)], "equal within 1e-06 in 2 epochs", 5e-7),
        ([0.5 * (1 + 5e-7), 0.4], "differs from epoch 2 by up to 0.4 (relative 0.5)", 0.5),
        ([0.4, 0.8], "differs from epoch 1 by up to 0.1 (relative 0.2)", 0.2),
        ([math.nan, 0.8], "differs from epoch 1 by up to nan (relative inf)", math.inf),
    ],
)
def test_the_verdict_names_the_first_epoch_that_differs_and_by_how_much(now, said, gap):
    told, largest = verdict({1: 0.5, 2: 0.8}, now)
    assert told == said
    assert largest == pytest.approx(gap, rel=1e-6)


def test_epochs_that_were_never_recorded_are_not_judged():
    assert verdict({2: math.nan}, [0.3, math.nan]) == ("identical in 1 epoch", 0.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_on_two_workers_is_reproduced_on_two_workers(dicom, tmp_path, capfd):
    run_id = trained(dicom, tmp_path / "home", workers=2)
    capfd.readouterr()
    reproduce(ReproduceRequest(run_id, find_place(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")))
    assert "identical in 3 epochs" in capfd.readouterr().out
