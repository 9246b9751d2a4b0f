"""`medgan features`: an encoder is trained on the targets of phantoms, and a training uses it as extractor."""

import os
import re
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from medgan.cli.main import main
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.locks import only_driver
from medgan.models.extractor import load_extractor
from medgan.training.checkpoint import read_history

SIZE, WIDTH = 32, 4


def command(data: Path, home: Path, **settings) -> list[str]:
    """Returns the arguments of a small run; dots of settings are written as two underscores."""
    values = {"generator.base_channels": WIDTH, "train.epochs": 2}
    values |= {name.replace("__", "."): value for name, value in settings.items()}
    fixed = [part for path, value in values.items() for part in ("--set", f"{path}={value}")]
    return ["features", "--data", str(data), "--size", str(SIZE), "--output", str(home), *fixed]


def called(*arguments) -> int:
    """Runs a command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["medgan", *map(str, arguments)])
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets this variable, and medgan reads it
        main()
    return stop.value.code or 0


@pytest.fixture
def run(capfd):
    """Runs a command in this process; returns its exit code and all its output."""

    def run_here(*arguments):
        code = called(*arguments)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run_here


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=6, matrix=48)


@pytest.fixture(scope="module")
def home(dicom, tmp_path_factory):
    """An output folder in which `medgan features` trained for two epochs."""
    folder = tmp_path_factory.mktemp("features") / "home"
    assert called(*command(dicom, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def weights(home):
    """The weights file that was written first."""
    (file,) = (home / "weights").glob("*.safetensors")
    return file


def folder_of(weights: Path, home: Path) -> Path:
    """Returns the checkpoint folder of a weights file."""
    return home / "checkpoints" / weights.stem.removeprefix("pet2ct-")


def test_weights_file_holds_encoder_of_best_epoch_and_metadata(home, weights):
    with safe_open(weights, framework="pt") as file:
        assert file.metadata() == {"network": "in_domain", "base_channels": str(WIDTH), "local_mean": "0.9"}
    written, best = load_file(weights), load_file(folder_of(weights, home) / "best.safetensors")
    encoder = {name.removeprefix("encoder."): value for name, value in best.items() if name.startswith("encoder.")}
    assert written.keys() == encoder.keys()
    assert all(torch.equal(written[name], encoder[name]) for name in written)


def test_load_extractor_loads_every_block_of_weights_file(weights):
    features = load_extractor("in_domain", str(weights), 4)(torch.zeros(2, 1, SIZE, SIZE))
    assert [tuple(block.shape) for block in features] == [
        (2, WIDTH * 2**stage, SIZE // 2 ** (stage + 1), SIZE // 2 ** (stage + 1)) for stage in range(4)
    ]


def test_features_prints_plan_epochs_and_use_of_weights_file(dicom, tmp_path, run):
    out = tmp_path / "deep" / "mine.safetensors"
    code, output = run(*command(dicom, tmp_path / "home"), "--out", out)
    assert code == 0, output
    assert re.search(r"^features +of the targets, 2 epochs$", output, re.M)
    assert re.search(r"^data +phantoms: 3 train patients \(18 slices\)", output, re.M)
    assert re.search(rf"^to +{out}$", output, re.M)
    assert re.search(r"^epoch 1/2: .* about \d+ s left$", output, re.M) and re.search(
        r"^epoch 2/2: .* done$", output, re.M
    )
    assert f"--set extractor.network=in_domain --set extractor.weights={out} " in output
    assert out.is_file() and not list(out.parent.glob("*.part"))


def test_features_again_writes_same_weights_without_training(dicom, home, weights, run):
    before, last = load_file(weights), folder_of(weights, home) / "last.safetensors"
    written = last.stat().st_mtime_ns
    code, output = run(*command(dicom, home))
    assert code == 0, output
    assert not re.search("^epoch ", output, re.M)
    assert last.stat().st_mtime_ns == written
    after = load_file(weights)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_features_with_more_epochs_continues_from_checkpoint(dicom, home, run):
    """With a constant learning rate, a run with more epochs continues a run with fewer epochs."""
    code, output = run(*command(dicom, home, optim__schedule="constant", train__epochs=1, train__seed=1))
    assert code == 0, output
    code, output = run(*command(dicom, home, optim__schedule="constant", train__epochs=3, train__seed=1))
    assert code == 0, output
    assert re.findall(r"^epoch (\S+):", output, re.M) == ["2/3", "3/3"]


def test_features_with_other_settings_trains_anew(dicom, home, weights, run):
    before = weights.read_bytes()
    for settings in ({"generator__base_channels": 6}, {"optim__generator_lr": 1e-4}, {"train__epochs": 3}):
        code, output = run(*command(dicom, home, **settings))
        assert code == 0, output
        assert re.search("^epoch 1/", output, re.M), settings
    assert weights.read_bytes() == before


def test_features_training_lowers_restoration_error(dicom, home, run):
    code, output = run(*command(dicom, home, train__epochs=12, generator__base_channels=8))
    assert code == 0, output
    folder = max((home / "checkpoints").iterdir(), key=lambda one: one.stat().st_mtime_ns)
    losses = [row["loss/generator/l1"] for row in read_history(folder)]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]


def test_train_uses_learned_features(dicom, home, weights, run):
    values = {
        **{"data.size": SIZE, "generator.base_channels": 4, "train.epochs": 1, "loss.lambda_content": 1},
        **{"extractor.network": "in_domain", "extractor.weights": weights, "loss.content_blocks": "[1,2]"},
    }
    settings = [part for path, value in values.items() for part in ("--set", f"{path}={value}")]
    code, output = run("train", "--preset", "unet_l1", "--data", dicom, "--quick", "--output", home, *settings)
    assert code == 0, output
    assert re.search(rf"^features +taught on target images \({weights}\)$", output, re.M)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("medgan/pet2ct-phantom").experiment_id])
    assert found.data.params["extractor.network"] == "in_domain"
    assert found.data.metrics["loss/generator/content"] > 0
    assert found.data.metrics["loss/generator/content_weighted"] == found.data.metrics["loss/generator/content"]


@pytest.mark.parametrize(
    ("network", "file", "values", "error_code"),
    [
        ("in_domain", "best.safetensors", "best.safetensors .* network None", "E-WEIGHTS-09"),
        ("squeezenet", "features", r"\.safetensors .* squeezenet: features\.0\.\S+ ", "E-EXTRACTOR-04"),
        ("in_domain", "/no/file", "medgan features --data FOLDER .* /no/file ", "E-WEIGHTS-07"),
    ],
)
def test_train_refuses_weights_of_another_network(
    dicom, home, weights, tmp_path, run, network, file, values, error_code
):
    path = {"features": weights, "best.safetensors": folder_of(weights, home) / "best.safetensors"}.get(file, file)
    chosen = {
        **{"data.size": SIZE, "loss.lambda_content": 1, "loss.content_blocks": "[1]"},
        **{"extractor.network": network, "extractor.weights": path},
    }
    settings = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    folder = tmp_path / "home"
    code, output = run("train", "--preset", "unet_l1", "--data", dicom, "--quick", "--output", folder, *settings)
    assert code == 2
    assert re.search(rf"^error: extractor.weights: .*{values}.* \[{error_code}\]$", output, re.M), output
    assert not folder.exists()


def test_features_refuses_second_driver(dicom, home, weights, run):
    name = folder_of(weights, home).name
    with only_driver(home / "logs" / f"{name}.lock", name):
        code, output = run(*command(dicom, home))
    assert code == 2
    assert re.search(rf"^error: .*{name}: already run by process {os.getpid()} on .* \[E-LOCK-02\]$", output, re.M)


def test_features_that_diverge_suggest_lower_learning_rate(dicom, home, run):
    code, output = run(*command(dicom, home, optim__generator_lr=1e30, optim__beta1=0.0))
    assert code == 1, output
    advice = r"--set optim.generator_lr=1e-4, and its file as extractor.weights\. \[E-FEATURES-03\]"
    expected = rf"^failed: .*(is nan|is inf|not finite).* {advice}$"
    assert re.search(expected, output, re.M), output
    assert "Traceback" not in output
