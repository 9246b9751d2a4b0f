"""`medgan evaluate` measures a model on phantoms, stores the result in a real MLflow store, and shows it."""

import csv
import errno
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from refusal import refusal
from rich.console import Console

from medgan.cli.registry_view import show_evaluated, show_evaluation
from medgan.cli.terminal import Terminal
from medgan.data.dataset import PreparedDataset
from medgan.errors import JobError
from medgan.inference.saved_model import read_manifest
from medgan.metrics.validation_metrics import overall_means
from medgan.registry import evaluation
from medgan.registry.evaluation import Evaluation, dataset_for_model, measure_model, refuse_unfit
from medgan.registry.leakage import refuse_seen
from medgan.workflows.evaluate import evaluate_model


@pytest.fixture(scope="module")
def evaluated(registered, dicom, place, model_name):
    """Returns the evaluation of the registered model on the DICOM of its training, and the output on the terminal."""
    screen = io.StringIO()
    terminal = Terminal({Evaluation: show_evaluation}, Console(file=screen, width=120))
    found = evaluate_model(f"models:/{model_name}/1", str(dicom), place, terminal)
    show_evaluated(terminal.console, found, place)
    return found.evaluation, screen.getvalue()


@pytest.fixture
def files(evaluated, dataset, place, model_name):
    return place.output / "evaluations" / f"{model_name}-1-{dataset.digest[:12]}"


def test_evaluate_model_measures_same_values_as_training(evaluated, trained, dataset):
    measured, _ = evaluated
    assert measured.patients == {patient: pytest.approx(values, rel=1e-5) for patient, values in trained.items()}
    assert set(measured.patients) == set(dataset.manifest.hashes("test"))
    assert sum(measured.slices.values()) == len(dataset.slices("test"))
    assert (measured.task, measured.data_digest, measured.version) == ("pet2ct", dataset.digest, "1")
    assert measured.latency_ms > 0 and 0.05 < measured.memory_gb < 20 and measured.device.startswith(("cpu", "NVIDIA"))
    assert measured.pretrained, "no extractor was used, so no random one"


def test_evaluate_model_reuses_data_set_of_training(evaluated, dataset, place):
    assert [path.parent for path in place.datasets.glob("*/dataset.json")] == [dataset.folder]


def test_evaluation_round_trips_through_json(evaluated):
    measured, _ = evaluated
    assert Evaluation.model_validate_json(measured.model_dump_json()) == measured
    perfect = measured.model_copy(update={"patients": {"a": {"psnr": float("inf")}}})
    assert Evaluation.model_validate_json(perfect.model_dump_json()) == perfect


def test_patients_csv_holds_every_metric_of_every_patient(evaluated, files):
    measured, _ = evaluated
    rows = list(csv.DictReader((files / "patients.csv").open()))
    assert {row["patient"] for row in rows} == set(measured.patients)
    for row in rows:
        values = measured.patients[row["patient"]]
        assert int(row["slices"]) == measured.slices[row["patient"]]
        assert {name: float(cell) for name, cell in row.items() if cell and name in values} == values


def test_evaluate_model_draws_best_median_and_worst_patient(evaluated, files):
    for name in ("best", "median", "worst"):
        assert (files / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_terminal_shows_patients_mean_and_folder_of_files(evaluated, files, place):
    measured, output = evaluated
    lines = output.splitlines()
    best = max(measured.patients, key=lambda patient: measured.patients[patient]["ssim"])
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in {*measured.patients, "mean"}]
    assert rows[0][0] == best and rows[-1][0] == "mean"
    assert float(rows[-1][1]) == pytest.approx(overall_means(measured.patients)["ssim"], rel=1e-3)
    assert "ssim" in output and "psnr (dB)" in output and "mae_hu_body" in output
    assert f"Files: {files}" in lines
    assert "Synthetic images, for research only; not for diagnosis." in lines


def test_evaluation_is_stored_with_version_in_mlflow(evaluated, dataset, place, model_name):
    measured, _ = evaluated
    client, short = MlflowClient(tracking_uri=place.tracking_uri), dataset.digest[:12]
    version = client.get_model_version(model_name, "1")
    kept = {Path(one.path).name for one in client.list_artifacts(version.run_id, f"evaluation/{short}")}
    assert kept == {"evaluation.json", "patients.csv", "best.png", "median.png", "worst.png"}
    mean = overall_means(measured.patients)["ssim"]
    assert version.tags[f"medgan.evaluation.{short}.ssim"] == f"{mean:.5g}"
    assert version.tags[f"medgan.evaluation.{short}.patients"] == "2"


def test_registered_model_records_training_patients_and_has_card(registered, dataset):
    manifest = read_manifest(registered)
    assert manifest.training_patients == dataset.manifest.hashes("train")
    assert manifest.validation_patients == dataset.manifest.hashes("validation")
    assert manifest.key_id == dataset.manifest.key_id != ""
    assert "for research only; not for diagnosis" in (registered / "card.md").read_text()


def test_test_set_of_depends_on_test_patients_and_arrays_only(dataset):
    patients = dataset.manifest.patients
    fewer = [one for one in patients if one.role != "train"]
    other = [one.model_copy(update={"sha256": {"source.npy": "0"}}) if one.role == "test" else one for one in patients]
    ours, same, changed = (
        evaluation.test_set_of(PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"patients": some})))
        for some in (patients, fewer[::-1], other)
    )
    assert ours == same != changed


def test_dataset_for_model_prepares_images_on_grid_of_model(dicom, registered, dataset, place):
    other = read_manifest(registered).model_copy(update={"spacing_mm": 12.5, "source_window": (0.0, 5.0)})
    made = dataset_for_model(str(dicom), other, place=place)
    assert made.manifest.spacing_mm == 12.5 and made.folder != dataset.folder
    refuse_unfit(other, made)
    refuse_seen(other, made)


def test_evaluation_of_model_with_random_features_is_not_pretrained(model, dataset, model_name):
    config = read_manifest(model()).config
    styled = config | {"loss": config["loss"] | {"lambda_style": 1.0}}
    folder = model(config=styled | {"extractor": config["extractor"] | {"weights": "random"}})
    assert not measure_model(folder, dataset, name=model_name, version="1").pretrained


@pytest.mark.timeout(120)
def test_evaluate_command_prints_table_and_no_engine_output(evaluated, dataset, place, model_name):
    command = [
        "evaluate",
        "--model",
        f"models:/{model_name}/1",
        "--data",
        str(dataset.folder),
        "--output",
        str(place.output),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "medgan.cli.main", *command], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "test patient" in done.stdout


def test_evaluation_on_full_disk_keeps_the_files_before(evaluated, files, place, dicom, model_name, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path.name: path.read_bytes() for path in files.iterdir()}
    monkeypatch.setattr("medgan.workflows.evaluate._draw", full)
    expected = refusal("E-DISK-01", place=files, reason="No space left on device")
    with pytest.raises(JobError, check=expected):
        evaluate_model(f"models:/{model_name}/1", str(dicom), place)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before
    assert [path for path in files.parent.iterdir() if "partial" in path.name] == []


def test_two_evaluations_at_once_both_succeed(evaluated, files, place, dicom, model_name):
    before = {path.name for path in files.iterdir()}
    command = [
        sys.executable,
        "-m",
        "medgan.cli.main",
        "evaluate",
        "--model",
        f"models:/{model_name}/1",
        "--data",
        dicom,
    ]
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(subprocess.run, [*command, "--output", place.output], capture_output=True, timeout=120)
            for _ in range(2)
        ]
    assert [one.result().returncode for one in both] == [0, 0], [one.result().stderr for one in both]
    assert {path.name for path in files.iterdir()} == before
