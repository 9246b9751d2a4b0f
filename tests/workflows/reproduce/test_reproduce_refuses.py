"""`medgan reproduce` refuses missing or changed data, unusable runs and wrong options."""

import json
import re

import mlflow
import pytest

from medgan.data.manifest import read_manifest
from medgan.tracking.mlflow_runs import MlflowStudy


def test_reproduce_refuses_missing_data_set_by_digest(
    medgan_reproduce, home, run_id, tmp_path, dataset_folder, trained
):
    digest = read_manifest(dataset_folder).digest
    moved = dataset_folder.rename(tmp_path / "elsewhere")
    code, output = medgan_reproduce(run_id)
    assert code == 2
    assert re.search(rf"^error: .*digest {digest}.* {home / 'datasets'} .* \[E-REPRODUCE-06\]$", output, re.M), output
    code, output = medgan_reproduce(run_id, "--epochs", 1, "--data", moved)
    assert code == 0, output
    code, output = medgan_reproduce(run_id, "--data", tmp_path)
    assert code == 2
    assert re.search(rf"^error: .*digest {digest}.* {tmp_path}\. \[E-REPRODUCE-06\]$", output, re.M), output


def test_reproduce_refuses_data_set_with_changed_images(medgan_reproduce, run_id, dataset_folder):
    folder = dataset_folder
    path = folder / read_manifest(folder).patients[0].folder / "source.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    code, output = medgan_reproduce(run_id)
    assert code == 2
    manifest = read_manifest(folder)
    assert f"error: {path}: the data set of digest {manifest.digest} has changed; " in output
    assert f"sha256 {manifest.patients[0].sha256['source.npy']}. [E-REPRODUCE-08]" in output


def test_reproduce_refuses_data_set_with_changed_description(medgan_reproduce, run_id, dataset_folder):
    (state,) = (dataset_folder / "states").iterdir()
    tree = json.loads(state.read_text())
    tree["patients"][0]["role"] = "test"
    state.write_text(json.dumps(tree))
    code, output = medgan_reproduce(run_id)
    assert code == 2
    assert re.search(rf"^error: {state}: .* digest {state.stem}\. \[E-REPRODUCE-07\]$", output, re.M), output


def test_reproduce_refuses_run_of_another_split(medgan_reproduce, home, run_id, dataset_folder):
    client, split = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}"), read_manifest(dataset_folder).split_digest
    client.set_tag(run_id, "medgan.split_digest", "abc")
    code, output = medgan_reproduce(run_id)
    client.set_tag(run_id, "medgan.split_digest", split)
    assert code == 2
    assert re.search(rf"^error: .*\(digest abc\); .*\(digest {split}\)\. \[E-REPRODUCE-09\]$", output, re.M), output


def test_reproduce_refuses_unknown_run(medgan_reproduce, home):
    code, output = medgan_reproduce("0" * 32)
    assert code == 2
    assert f"error: run {'0' * 32}: not found in sqlite:///{home / 'mlflow.db'}: " in output
    assert output.endswith(" [E-MLFLOW-06]\n")


def test_reproduce_refuses_missing_store_and_does_not_create_store(medgan_reproduce, run_id, tmp_path):
    code, output = medgan_reproduce(run_id, "--tracking-uri", f"sqlite:///{tmp_path / 'none.db'}")
    assert code == 2
    assert f"error: --tracking-uri sqlite:///{tmp_path / 'none.db'}: " in output
    assert output.endswith(" [E-MLFLOW-05]\n")
    assert not (tmp_path / "none.db").exists()


def test_reproduce_refuses_run_without_configuration(medgan_reproduce, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = MlflowStudy(uri, "medgan/pet2ct-phantom", artifacts=tmp_path / "artifacts", study="s", key="k")
    code, output = medgan_reproduce(study.run.run_id, "--tracking-uri", uri)
    assert code == 2
    assert re.search(rf"^error: run {study.run.run_id}: .* config.json .* \[E-REPRODUCE-02\]$", output, re.M), output


@pytest.mark.parametrize(
    ("values", "name", "error_code"),
    [
        ({"optim.warp": 1}, "optim.warp", "E-REPRODUCE-03"),
        ({"metrics.select": "val/psnr_body_2"}, "val/psnr_body_2", "E-REPRODUCE-04"),
    ],
)
def test_reproduce_refuses_unusable_configuration(medgan_reproduce, artifact, run_id, values, name, error_code):
    artifact("config.json", values)
    code, output = medgan_reproduce(run_id)
    assert code == 2
    assert re.search(rf"^error: run {run_id}: .*{name}.* \[{error_code}\]$", output, re.M), output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--epochs", 9), r"^error: --epochs: .* 3,.* got 9\. \[E-REPRODUCE-05\]$"),
        (("--epochs", 0), r"^error: --epochs: .* got 0\. \[E-CONFIG-20\]$"),
        (("--workers", 0), r"^error: --workers: .* got 0\. \[E-CONFIG-20\]$"),
        (("--workers", 3), r"^error: train.batch_size: .* 3 workers; got 8\. \[E-REQUEST-07\]$"),
        (("--rtol", -1), "Invalid value for '--rtol'"),
    ],
)
def test_reproduce_refuses_wrong_option(medgan_reproduce, run_id, arguments, expected):
    code, output = medgan_reproduce(run_id, *arguments)
    assert code == 2
    assert re.search(expected, output, re.M), output
