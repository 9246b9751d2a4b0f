"""The command line: fixed names, instant help, and refusals: one line, exit code 2, nothing left behind."""

import re
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
    """Runs a command that must be refused; gives its message."""

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/no/such/folder"], "/no/such/folder: expected a folder of images; there is no such folder"),
        (["--trials", "0"], "--trials: expected 1 or more; got 0"),
        (["--workers", "0"], "--workers: expected 1 or more; got 0"),
        (["--workers", "999"], "--workers 999: one trial needs a "),
        (["--concurrent", "999"], "--concurrent 999: "),
        (["--space", "fast"], "--space: expected a file or one of"),
        (["--set", "generator.blocks=3"], "unknown setting 'generator.blocks'; did you mean"),
        (["--set", "train.epochs=0"], "train.epochs: .*got 0"),
        (["--set", "train.epochs"], "--set: expected path=value"),
        (["--set", "data.size=100"], "data.size 100"),
        (["--set", "extractor.weights=/no/file"], "extractor.weights: .*there is no file /no/file"),
        (["--workers", "1", "--set", "train.batch_size=400"], "train.batch_size: 3 batches must fit into the"),
        (["--set", "train.batch_size=3"], "train.batch_size: expected a multiple of the 2 workers; got 3"),
        (
            ["--set", "generator.network=discogan", "--set", "data.size=40"],
            "data.size 40: generator: expected sides that are multiples of 16; got 40 x 40",
        ),
        (["--study", "a b"], "--study: expected letters"),
        (["--tracking-uri", "nosuch://x"], "--tracking-uri nosuch://x: cannot open"),
        (["--study-uri", "sqlite:////no/such/folder/x.db"], "--study-uri .*cannot open the study database"),
        (["--study-uri", "postgresql://127.0.0.1:9/x"], "--study-uri .*cannot open the study database"),
        (["--study-uri", "sqlite:///x.db", "--tracking-uri", "sqlite:///x.db"], "expected two databases"),
        (["--max-gpu-hours", "0"], "--max-gpu-hours: expected more than 0 hours; got 0"),
        (["--max-hours", "-1"], "--max-hours: expected more than 0 hours; got -1"),
        (["--set", "metrics.select=val/suv"], "val/suv: expected a metric that is measured here, one of val/bias_hu"),
        (["--set", "metrics.select=loss/generator/l1"], "loss/generator/l1: expected a metric that is measured here"),
    ],
)
def test_tune_job_refuses_wrong_option_or_setting(refused, arguments, message):
    assert re.search(message, refused(job, *arguments))


COMMANDS_OF_ONE = [
    (["--data", "/no/such/folder"], "/no/such/folder: expected a folder of images; there is no such folder"),
    (["--task", "ct2mr"], "expected one of .*pet2ct.*ct2mr"),
    (["--set", "train.epochs=0"], "train.epochs: .*got 0"),
    (["--set", "train.epochs"], "--set: expected path=value"),
    (["--set", "generator.blocks=3"], "unknown setting 'generator.blocks'; did you mean"),
    (["--set", "train.batch_size=400"], "train.batch_size: 1 batches must fit into the"),
    (["--set", "data.size=100"], "100"),
    (["--set", "metrics.lpips=squeeze"], "metrics.lpips squeeze: needs its weights; give the folder"),
    (
        ["--set", "metrics.lpips=squeeze", "--set", "metrics.lpips_weights=/no/folder"],
        "metrics.lpips_weights: expected a file squeezenet.*pth below /no/folder; there is none",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *COMMANDS_OF_ONE,
        (["--preset", "unet_l2"], r"preset: expected one of medgan, .*; got 'unet_l2'; did you mean unet_l1\?"),
        (["--workers", "0"], "--workers: expected 1 or more; got 0"),
        (["--workers", "8000", "--set", "train.batch_size=8000"], "--workers 8000: one trial needs a "),
        (["--workers", "3"], "train.batch_size: expected a multiple of the 3 workers; got 2"),
        (
            ["--preset", "style_content", "--set", "extractor.weights=/no/file"],
            "extractor.weights: .* no file /no/file",
        ),
        (["--preset", "discogan", "--set", "data.size=40"], "data.size 40: .*multiples of 16; got 40 x 40"),
        (["--tracking-uri", "nosuch://x"], "--tracking-uri nosuch://x: cannot open"),
    ],
)
def test_train_refuses_wrong_option_or_setting(refused, phantoms, arguments, message):
    data = [] if "--data" in arguments else ["--data", phantoms]
    preset = [] if "--preset" in arguments else ["--preset", "unet_l1"]
    settings = ["--set", "train.batch_size=2", *arguments]
    assert re.search(message, refused(main, "train", *preset, "--quick", *data, *settings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *COMMANDS_OF_ONE,
        (["--size", "100"], "data.size 100: .*multiples of 16; got 100 x 100"),
        (["--size", "8"], "data.size: .*greater than or equal to 16; got 8"),
        (["--set", "generator.network=resnet"], "generator.network: features are taught by autoencoder; got resnet"),
    ],
)
def test_features_refuses_wrong_option_or_setting(refused, phantoms, arguments, message):
    data = [] if "--data" in arguments else ["--data", phantoms]
    assert re.search(message, refused(main, "features", *data, "--set", "train.batch_size=2", *arguments))


def test_tune_job_refuses_folder_without_dicom(refused, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    assert "expected DICOM" in refused(job, "--data", tmp_path / "text")


def test_tune_job_refuses_patients_with_one_modality(refused, phantoms, tmp_path):
    copy = shutil.copytree(phantoms, tmp_path / "only-ct")
    for folder in copy.glob("*/PT"):
        shutil.rmtree(folder)
    assert "found 3 CT and 0 PT" in refused(job, "--data", copy)


def test_tune_job_refuses_fewer_than_three_patients(refused, phantoms, tmp_path):
    copy = shutil.copytree(phantoms, tmp_path / "two")
    shutil.rmtree(copy / "PHANTOM-0003")
    assert "0 train, 0 validation, 2 test (it takes 3 to split)" in refused(job, "--data", copy)


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
    message = refused(main, "translate", tmp_path, tmp_path / "out", "--model", model)
    assert "--model" in message and model in message
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
    said = capsys.readouterr().out
    assert "(default: $MEDGAN_HOME, else ~/medgan)" in said
    assert "(default: $MLFLOW_TRACKING_URI, else mlflow.db in --output)" in said
