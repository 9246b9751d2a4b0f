"""`medgan train`: its output, its records, its registered model, and the same command a second time."""

import json
import os
import re

import pydicom
import pytest

from medgan.locks import only_driver


def test_train_prints_plan_epochs_test_metrics_and_next_commands(trained, home, name_in, kept):
    name = name_in(trained)
    assert name.startswith("unet_l1-")
    assert "up to 2 epochs" in trained
    assert re.search(
        r"^data +phantoms: 3 train patients \(24 slices\), 1 validation .* 2 test .* 32 px of", trained, re.M
    )
    assert re.search(r"^features +none$", trained, re.M)
    assert re.search(r"^workers +one process$", trained, re.M)
    assert re.search(rf"^output +{home}/checkpoints/{name} \(log: logs/{name}.log\)$", trained, re.M)
    assert "no effect" not in trained
    one = r"val/ssim -?\d\.\d{3}, MAE \d+(\.\d+)? HU, \d+\.\d s; best -?\d\.\d{3}"
    assert re.search(rf"^epoch 1/2: {one}, about \d+ s left$", trained, re.M)
    assert re.search(rf"^epoch 2/2: {one}, done$", trained, re.M)
    assert re.search(r"^2 held-out test patients, generator of epoch [12]; spread: over patients$", trained, re.M)
    assert re.search(r"^test metric +mean +spread +mean image", trained, re.M)
    for metric in ("ssim", "psnr (dB)", "mse (of 0..255)", "mae_hu_body"):
        assert re.search(rf"^{re.escape(metric)}( +-?[\d.e+]+){{3}} *$", trained, re.M), metric
    assert f"Registered {kept.model} version 1. For research only; not for diagnosis." in trained
    assert f"Pictures: {home}/checkpoints/{name}/validation.png" in trained
    assert f"mlflow ui --backend-store-uri sqlite:///{home}/mlflow.db" in trained
    assert f"medgan translate --model models:/{kept.model}/1 --output {home} SOURCE_FOLDER OUT_FOLDER" in trained
    assert "--set train.epochs=N" in trained


def test_mlflow_run_holds_parameters_epochs_test_metrics_and_pictures(trained, name_in, kept):
    client, found = kept.store, kept.run_named(name_in(trained))
    assert found.info.status == "FINISHED"
    assert found.data.params["preset"] == "unet_l1"
    assert (found.data.params["train.epochs"], found.data.params["data.size"]) == ("2", "32")
    assert {"loss.lambda_l1", "generator.depth", "extractor.weights", "optim.beta1"} <= found.data.params.keys()
    assert found.data.tags["medgan.preset"] == "unet_l1"
    assert found.data.tags["medgan.state"] == "complete"
    assert {"medgan.data_digest", "medgan.commit", "medgan.task"} <= found.data.tags.keys()
    history = kept.history(name_in(trained))
    for metric in ("loss/generator/l1", "loss/generator/l1_weighted", "val/ssim", "val/mae_hu_body", "time/epoch_s"):
        logged = client.get_metric_history(found.info.run_id, metric)
        assert [point.step for point in logged] == [1, 2], metric
        assert [point.value for point in logged] == [row[metric] for row in history], metric
    shown = float(re.search(r"^ssim +(\S+)", trained, re.M)[1])
    assert found.data.metrics["test/ssim"] == pytest.approx(shown, rel=1e-3)
    assert {"test/psnr", "test/mse", "test/mae_hu", "test/mae_hu_body"} <= found.data.metrics.keys()
    assert [file.path for file in client.list_artifacts(found.info.run_id, "pictures")] == ["pictures/validation.png"]


def test_registered_version_holds_best_generator_and_has_no_alias(trained, name_in, kept, same_weights):
    (version,) = kept.versions(name_in(trained))
    assert version.version in ("1", 1)
    assert kept.store.get_registered_model(kept.model).aliases == {}
    assert version.tags["test/ssim"] == f"{kept.run_named(name_in(trained)).data.metrics['test/ssim']:.5g}"
    assert same_weights(kept.registered_generator(version.version), kept.best_generator(name_in(trained)))


def test_registered_version_translates_phantom(trained, home, dicom, tmp_path, run, kept):
    source = dicom / "PHANTOM-0002" / "PT"
    code, output = run("translate", source, tmp_path / "out", "--model", f"models:/{kept.model}/1", "--output", home)
    assert code == 0, output
    written = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert len(written) == len(list(source.iterdir()))
    assert {(image.Modality, image.SyntheticData, image.PatientID) for image in written} == {
        ("CT", "YES", "PHANTOM-0002")
    }


def test_train_again_prints_same_result_without_training(trained, home, command, run, name_in, kept):
    last = home / "checkpoints" / name_in(trained) / "last.safetensors"
    before = last.stat().st_mtime_ns
    code, again = run(*command("unet_l1", train__epochs=2))
    assert code == 0, again
    assert not re.search(r"^epoch ", again, re.M)
    assert last.stat().st_mtime_ns == before
    result = trained[trained.index("2 held-out") :]
    assert [line.rstrip() for line in again[again.index("2 held-out") :].splitlines()] == [
        line.rstrip() for line in result.splitlines()
    ]
    assert len(kept.versions(name_in(trained))) == 1
    assert kept.run_named(name_in(trained)).info.status == "FINISHED"


def test_output_folder_names_no_patient_and_no_source_folder(trained, home, dicom):
    for path in home.rglob("*"):
        assert "PHANTOM-00" not in str(path)
        if path.is_file():
            assert b"PHANTOM-00" not in path.read_bytes(), path
            assert str(dicom).encode() not in path.read_bytes(), path


def test_train_refuses_second_driver(trained, home, command, run, name_in):
    name = name_in(trained)
    with only_driver(home / "logs" / f"{name}.lock", name):
        code, output = run(*command("unet_l1", train__epochs=2))
    assert code == 2
    assert re.search(
        rf"^error: .*{name}: already run by process {os.getpid()} on .*, since .* \[E-LOCK-02\]$", output, re.M
    )


def test_plan_names_settings_without_effect_on_networks(trained, command, run):
    settings = {"generator__network": "resnet", "generator__block": "residual", "generator__depth": 3}
    code, output = run(*command("unet_l1", train__epochs=1, **settings))
    assert code == 0, output
    assert re.search(r"^no effect +generator\.block, generator\.depth here$", output, re.M)


def test_plan_names_settings_of_networks_that_are_not_built(trained, command, run):
    settings = {"discriminator__patch": 16, "discriminator__norm": "none", "extractor__network": "alexnet"}
    code, output = run(*command("unet_l1", train__epochs=1, **settings))
    assert code == 0, output
    named = re.search(r"^no effect +(.*) here$", output, re.M)
    assert named, output
    assert set(named[1].split(", ")) == {"discriminator.patch", "discriminator.norm", "extractor.network"}


def test_mlflow_run_records_settings_by_paths_that_set_accepts(trained, run, name_in, kept):
    code, output = run("inspect", "--preset", "unet_l1", "--quick", "--settings")
    assert code == 0
    paths = re.findall(r"^((?:data|generator|discriminator|loss|extractor|optim|train|metrics)\.\w+) ", output, re.M)
    assert {*paths, "preset"} == set(kept.run_named(name_in(trained)).data.params)
    assert json.loads(kept.run_named(name_in(trained)).data.params["loss.content_blocks"]) == [1, 2]
