"""What stands in the way of `medgan reproduce`: data gone or changed, a run or option that says nothing here."""

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
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: the run was trained on the data set of digest {digest}; it is not below {home / 'datasets'}" in said
    code, said = medgan_reproduce(run_id, "--epochs", 1, "--data", moved)
    assert code == 0, said
    code, said = medgan_reproduce(run_id, "--data", tmp_path)
    assert code == 2
    assert f"digest {digest}; it is not {tmp_path}" in said


def test_reproduce_refuses_data_set_with_changed_images(medgan_reproduce, run_id, dataset_folder):
    folder = dataset_folder
    path = folder / read_manifest(folder).patients[0].folder / "source.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: {path}: the data set of digest {read_manifest(folder).digest} has changed: expected sha256" in said


def test_reproduce_refuses_data_set_with_changed_description(medgan_reproduce, run_id, dataset_folder):
    (state,) = (dataset_folder / "states").iterdir()
    tree = json.loads(state.read_text())
    tree["patients"][0]["role"] = "test"
    state.write_text(json.dumps(tree))
    code, said = medgan_reproduce(run_id)
    assert code == 2
    assert f"error: {state}: the data set has changed: its description is not that of digest {state.stem}" in said


def test_reproduce_refuses_run_of_another_split(medgan_reproduce, home, run_id, dataset_folder):
    client, split = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}"), read_manifest(dataset_folder).split_digest
    client.set_tag(run_id, "medgan.split_digest", "abc")
    code, said = medgan_reproduce(run_id)
    client.set_tag(run_id, "medgan.split_digest", split)
    assert code == 2
    assert "expected the patients split as the run had them (digest abc); they are split otherwise" in said
    assert f"({split})" in said


def test_reproduce_refuses_unknown_run(medgan_reproduce, home):
    code, said = medgan_reproduce("0" * 32)
    assert code == 2
    assert f"error: run {'0' * 32}: not found in sqlite:///{home / 'mlflow.db'}: " in said


def test_reproduce_refuses_missing_store_and_does_not_create_store(medgan_reproduce, run_id, tmp_path):
    code, said = medgan_reproduce(run_id, "--tracking-uri", f"sqlite:///{tmp_path / 'none.db'}")
    assert code == 2
    assert f"error: --tracking-uri sqlite:///{tmp_path / 'none.db'}: there is no such store" in said
    assert not (tmp_path / "none.db").exists()


def test_reproduce_refuses_run_without_configuration(medgan_reproduce, tmp_path):
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
def test_reproduce_refuses_unusable_configuration(medgan_reproduce, artifact, run_id, values, message):
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
def test_reproduce_refuses_wrong_option(medgan_reproduce, run_id, arguments, message):
    code, said = medgan_reproduce(run_id, *arguments)
    assert code == 2
    assert re.search(message, said), said
