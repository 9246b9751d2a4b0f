"""The command line has fixed names and instant help; it refuses in one line, with exit code 2, and leaves no files."""

import shutil
import subprocess
import sys
import time

import pytest
from refusal import refusal

from medgan.cli.main import main, run_job
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.errors import InputError
from medgan.locks import only_driver
from medgan.paths import redacted


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=3, slices=4, matrix=32)


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Runs a command that must be refused; returns its message."""

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    def message_of(entry, *arguments):
        output = tmp_path / "output"
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments), "--output", str(output)])
        with pytest.raises(SystemExit) as stop:
            entry()
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 2
        assert not output.exists()
        assert len(error.splitlines()) == 1
        return error

    return message_of


def job():
    run_job("pet2ct")


def has(error, code, *values):
    """Returns whether an error on the terminal ends with this code and holds these values."""
    return error.endswith(f"[{code}]") and all(value in error for value in values)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "/no/such/folder"], ("E-PREPARE-02", "/no/such/folder: ")),
        (["--trials", "0"], ("E-CONFIG-20", "--trials: ", "got 0")),
        (["--workers", "0"], ("E-CONFIG-20", "--workers: ", "got 0")),
        (["--workers", "999"], ("E-CLUSTER-01", "--workers 999: ")),
        (["--concurrent", "999"], ("E-CLUSTER-02", "--concurrent: ", "got 999")),
        (["--space", "fast"], ("E-SPACE-17", "--space: ", "'fast'")),
        (["--set", "generator.blocks=3"], ("E-CONFIG-17", "'generator.blocks'", "did you mean")),
        (["--set", "train.epochs=0"], ("E-CONFIG-18", "train.epochs: ", "got 0")),
        (["--set", "train.epochs"], ("E-CONFIG-19", "--set: ", "'train.epochs'")),
        (["--set", "data.size=100"], ("E-CONFIG-01", "data.size: ", "multiple of 16", "got 100")),
        (["--set", "extractor.weights=/no/file"], ("E-WEIGHTS-04", "extractor.weights: ", "/no/file")),
        (
            ["--workers", "1", "--set", "train.batch_size=400"],
            ("E-REQUEST-09", "train.batch_size: ", "3 batches", "400"),
        ),
        (["--set", "train.batch_size=3"], ("E-REQUEST-07", "train.batch_size: ", "2 workers", "got 3")),
        (
            ["--set", "generator.network=discogan"],
            ("E-SPACE-20", "generator.num_blocks is searched, but no network and no loss term of any trial"),
        ),
        (["--study", "a b"], ("E-REQUEST-05", "--study: ", "'a b'")),
        (["--tracking-uri", "nosuch://x"], ("E-MLFLOW-04", "--tracking-uri nosuch://x: ")),
        (
            ["--study-uri", "sqlite:////no/such/folder/x.db"],
            ("E-STUDY-05", "--study-uri sqlite:////no/such/folder/x.db"),
        ),
        (["--study-uri", "postgresql://127.0.0.1:9/x"], ("E-STUDY-05", "--study-uri postgresql://127.0.0.1:9/x")),
        (["--study-uri", "sqlite:///x.db", "--tracking-uri", "sqlite:///x.db"], ("E-REQUEST-03", "sqlite:///x.db")),
        (["--max-gpu-hours", "0"], ("E-BUDGET-01", "--max-gpu-hours: ", "got 0")),
        (["--max-hours", "-1"], ("E-BUDGET-01", "--max-hours: ", "got -1")),
        (["--set", "metrics.select=val/mae_hu"], ("E-SPACE-19", "metrics.select: ", "val/ssim, ", "got val/mae_hu")),
        (["--set", "metrics.select=loss/generator/l1"], ("E-SPACE-19", "metrics.select: ", "got loss/generator/l1")),
    ],
)
def test_tune_job_refuses_wrong_option_or_setting(refused, arguments, expected):
    error = refused(job, *arguments)
    assert has(error, *expected), error


COMMANDS_OF_ONE = [
    (["--data", "/no/such/folder"], ("E-PREPARE-02", "/no/such/folder: ")),
    (["--task", "ct2mr"], ("E-TASK-01", "pet2ct", "'ct2mr'")),
    (["--set", "train.epochs=0"], ("E-CONFIG-18", "train.epochs: ", "got 0")),
    (["--set", "train.epochs"], ("E-CONFIG-19", "--set: ", "'train.epochs'")),
    (["--set", "generator.blocks=3"], ("E-CONFIG-17", "'generator.blocks'", "did you mean")),
    (["--set", "train.batch_size=400"], ("E-REQUEST-09", "train.batch_size: ", "1 batches", "400")),
    (["--set", "metrics.lpips=squeeze"], ("E-CONFIG-10", "metrics.lpips squeeze: ", "metrics.lpips_weights")),
    (
        ["--set", "metrics.lpips=squeeze", "--set", "metrics.lpips_weights=/no/folder"],
        ("E-TRAIN-01", "metrics.lpips_weights: ", "squeezenet", ".pth below /no/folder"),
    ),
]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        *COMMANDS_OF_ONE,
        (["--set", "data.size=100"], ("E-CONFIG-01", "data.size: ", "multiple of 16", "got 100")),
        (["--set", "metrics.select=val/suv"], ("E-REQUEST-08", "val/suv: ", "one of val/bias_hu")),
        (["--set", "metrics.select=loss/generator/l1"], ("E-REQUEST-08", "loss/generator/l1: ")),
        (["--preset", "unet_l2"], ("E-PRESET-01", "one of medgan, ", "got 'unet_l2'", "Did you mean unet_l1?")),
        (["--workers", "0"], ("E-CONFIG-20", "--workers: ", "got 0")),
        (["--workers", "8000", "--set", "train.batch_size=8000"], ("E-CLUSTER-01", "--workers 8000: ")),
        (["--workers", "3"], ("E-REQUEST-07", "train.batch_size: ", "3 workers", "got 2")),
        (
            ["--preset", "style_content", "--set", "extractor.weights=/no/file"],
            ("E-WEIGHTS-04", "extractor.weights: ", "/no/file"),
        ),
        (
            ["--preset", "discogan", "--set", "data.size=40"],
            ("E-NETWORK-13", "data.size 40: ", "multiples of 16", "got 40 x 40"),
        ),
        (["--tracking-uri", "nosuch://x"], ("E-MLFLOW-04", "--tracking-uri nosuch://x: ")),
    ],
)
def test_train_refuses_wrong_option_or_setting(refused, phantoms, arguments, expected):
    data = [] if "--data" in arguments else ["--data", phantoms]
    preset = [] if "--preset" in arguments else ["--preset", "unet_l1"]
    settings = ["--set", "train.batch_size=2", *arguments]
    error = refused(main, "train", *preset, "--quick", *data, *settings)
    assert has(error, *expected), error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        *COMMANDS_OF_ONE,
        (["--set", "data.size=100"], ("E-NETWORK-09", "data.size 100: ", "multiples of 16", "got 100 x 100")),
        (["--size", "100"], ("E-NETWORK-09", "data.size 100: ", "multiples of 16", "got 100 x 100")),
        (["--size", "8"], ("E-CONFIG-18", "data.size: ", "greater than or equal to 16", "got 8")),
        (["--set", "generator.network=resnet"], ("E-FEATURES-01", "generator.network: ", "autoencoder", "got resnet")),
    ],
)
def test_features_refuses_wrong_option_or_setting(refused, phantoms, arguments, expected):
    data = [] if "--data" in arguments else ["--data", phantoms]
    error = refused(main, "features", *data, "--set", "train.batch_size=2", *arguments)
    assert has(error, *expected), error


def test_tune_job_refuses_folder_without_dicom(refused, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    error = refused(job, "--data", tmp_path / "text")
    assert has(error, "E-READ-02", str(tmp_path / "text"), "1 file: 1 not DICOM"), error


def test_tune_job_refuses_patients_with_one_modality(refused, phantoms, tmp_path):
    copy = shutil.copytree(phantoms, tmp_path / "only-ct")
    for folder in copy.glob("*/PT"):
        shutil.rmtree(folder)
    error = refused(job, "--data", copy)
    assert has(error, "E-PAIR-01", "3 CT and 0 PT"), error


def test_tune_job_refuses_fewer_than_three_patients(refused, phantoms, tmp_path):
    copy = shutil.copytree(phantoms, tmp_path / "two")
    shutil.rmtree(copy / "PHANTOM-0003")
    error = refused(job, "--data", copy)
    assert has(error, "E-DATASET-01", "0 train, 0 validation, 2 test"), error


def test_only_driver_refuses_second_driver_of_study(tmp_path):
    with (
        only_driver(tmp_path / "s.lock", "s"),
        pytest.raises(InputError, check=refusal("E-LOCK-02", study="s")),
        only_driver(tmp_path / "s.lock", "s"),
    ):
        pass


def test_redacted_hides_password():
    assert redacted("postgresql://alice:secret@host/db") == "postgresql://alice:***@host/db"
    assert redacted("sqlite:////home/a/mlflow.db") == "sqlite:////home/a/mlflow.db"


@pytest.mark.parametrize("model", ["models:/medgan-pet2ct@champion", "champion"])
def test_translate_refuses_missing_model(refused, tmp_path, model):
    error = refused(main, "translate", tmp_path, tmp_path / "out", "--model", model)
    code = "E-REGISTRY-05" if model.startswith("models:/") else "E-REGISTRY-04"
    assert has(error, code, "--model", model), error
    assert not (tmp_path / "out").exists()


def test_help_is_instant_and_names_every_command():
    began = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-m", "medgan.cli.main", "--help"], capture_output=True, text=True, timeout=60
    )
    assert time.perf_counter() - began < 5
    for name in (
        "phantoms", "prepare", "features", "inspect", "train", "tune", "plan", "translate", "doctor", "reproduce",
        "evaluate", "promote", "rollback", "serve",
    ):  # fmt: skip
        assert name in answer.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "promote", "rollback", "translate", "serve", "doctor"])
def test_help_of_command_shows_default_places(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["medgan", command, "--help"])
    with pytest.raises(SystemExit):
        main()
    text = capsys.readouterr().out
    assert "(default: $MEDGAN_HOME, else ~/medgan)" in text
    assert "(default: $MLFLOW_TRACKING_URI, else mlflow.db in --output)" in text
