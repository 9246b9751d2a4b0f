"""`medgan evaluate` on real phantoms and a real MLflow store: what it measures, keeps, shows, and refuses."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console
from safetensors.torch import load_file, save_file

from medgan import evaluation
from medgan.build.networks import build_generator
from medgan.build.testing import measure_on_test
from medgan.conclude import register_generator
from medgan.config import Config, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import read_manifest as read_data_manifest
from medgan.data.manifest import store_manifest
from medgan.data.phantoms import write_phantoms
from medgan.data.prepare import Request, prepare
from medgan.engine.runtime import SingleProcess
from medgan.errors import InputError, JobError
from medgan.evaluate import EvaluateRequest, evaluate_model
from medgan.evaluation import Evaluation, dataset_for_model, measure_model, refuse_seen, refuse_unfit
from medgan.metrics.table import overall_means
from medgan.place import find_place
from medgan.registry.models import fetched
from medgan.serving.model import MANIFEST, WEIGHTS, read_manifest
from medgan.tasks import TASKS
from medgan.tracking.mlflow import MlflowStudy

NAME = "medgan-pet2ct-phantom"
SIZE = 32


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=6, matrix=48)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return find_place(tmp_path_factory.mktemp("evaluated") / "home", tracking_uri="")


@pytest.fixture(scope="module", autouse=True)
def own_store(place):
    """MLflow itself sets the variable, and medgan would look there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield


@pytest.fixture(scope="module")
def dataset(dicom, place):
    return PreparedDataset.open(prepare(Request(dicom, TASKS["pet2ct"], SIZE, place.datasets)))


@pytest.fixture(scope="module")
def trained(dataset, place):
    """What a registered, untrained generator measured when it was registered."""
    config = with_values(Config(), {"data.size": SIZE, "generator.base_channels": 4})
    weights = place.output / "best.safetensors"
    save_file(build_generator(config).state_dict(), weights)
    study = MlflowStudy(place.tracking_uri, "medgan/pet2ct-phantom", artifacts=place.artifacts, study="s", key="k")
    test, _ = measure_on_test(config, weights, dataset, SingleProcess())
    with study:
        register_generator(NAME, config, weights, dataset, run_id=study.run.run_id, uri=place.tracking_uri, test=test)
    return test


@pytest.fixture(scope="module")
def registered(trained, place, tmp_path_factory):
    """The registered model's folder."""
    with fetched(f"models:/{NAME}/1", uri=place.tracking_uri) as (folder, _, _):
        return Path(shutil.copytree(folder, tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def model(registered, tmp_path):
    """A copy of it to change; `model(field=value)` changes its manifest."""
    folder = Path(shutil.copytree(registered, tmp_path / "changed"))

    def changed(**fields):
        content = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(content | fields))
        return folder

    return changed


@pytest.fixture(scope="module")
def evaluated(registered, dicom, place):
    """The evaluation of the registered model on the DICOM it was trained on, and what the terminal said."""
    said = io.StringIO()
    request = EvaluateRequest(f"models:/{NAME}/1", str(dicom), place)
    return evaluate_model(request, Console(file=said, width=120)), said.getvalue()


@pytest.fixture
def files(evaluated, dataset, place):
    return place.output / "evaluations" / f"{NAME}-1-{dataset.digest[:12]}"


def test_it_measures_what_the_training_measured(evaluated, trained, dataset):
    measured, _ = evaluated
    assert measured.patients == {patient: pytest.approx(values, rel=1e-5) for patient, values in trained.items()}
    assert set(measured.patients) == set(dataset.manifest.hashes("test"))
    assert sum(measured.slices.values()) == len(dataset.slices("test"))
    assert (measured.task, measured.data_digest, measured.version) == ("pet2ct", dataset.digest, "1")
    assert measured.latency_ms > 0 and 0.05 < measured.memory_gb < 20 and measured.device.startswith(("cpu", "NVIDIA"))
    assert measured.pretrained, "no extractor was used, so none was random"


def test_images_that_were_prepared_for_the_training_are_not_prepared_twice(evaluated, dataset, place):
    assert [path.parent for path in place.datasets.glob("*/dataset.json")] == [dataset.folder]


def test_it_is_the_same_after_json(evaluated):
    measured, _ = evaluated
    assert Evaluation.model_validate_json(measured.model_dump_json()) == measured
    perfect = measured.model_copy(update={"patients": {"a": {"psnr": float("inf")}}})
    assert Evaluation.model_validate_json(perfect.model_dump_json()) == perfect


def test_the_csv_holds_every_metric_of_every_patient(evaluated, files):
    measured, _ = evaluated
    rows = list(csv.DictReader((files / "patients.csv").open()))
    assert {row["patient"] for row in rows} == set(measured.patients)
    for row in rows:
        values = measured.patients[row["patient"]]
        assert int(row["slices"]) == measured.slices[row["patient"]]
        assert {name: float(cell) for name, cell in row.items() if cell and name in values} == values


def test_there_are_pictures_of_the_best_the_median_and_the_worst(evaluated, files):
    for name in ("best", "median", "worst"):
        assert (files / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_terminal_shows_patients_mean_spread_and_where_the_files_are(evaluated, files, place):
    measured, said = evaluated
    lines = said.splitlines()
    best = max(measured.patients, key=lambda patient: measured.patients[patient]["ssim"])
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in {*measured.patients, "mean"}]
    assert rows[0][0] == best and rows[-1][0] == "mean"
    assert float(rows[-1][1]) == pytest.approx(overall_means(measured.patients)["ssim"], rel=1e-3)
    assert "ssim" in said and "psnr (dB)" in said and "mae_hu_body" in said
    assert f"Files: {files}" in lines
    assert "Synthetic images, for research only; not for diagnosis." in lines


def test_mlflow_keeps_it_with_the_version(evaluated, dataset, place):
    measured, _ = evaluated
    client, short = MlflowClient(tracking_uri=place.tracking_uri), dataset.digest[:12]
    version = client.get_model_version(NAME, "1")
    kept = {Path(one.path).name for one in client.list_artifacts(version.run_id, f"evaluation/{short}")}
    assert kept == {"evaluation.json", "patients.csv", "best.png", "median.png", "worst.png"}
    mean = overall_means(measured.patients)["ssim"]
    assert version.tags[f"medgan.evaluation.{short}.ssim"] == f"{mean:.5g}"
    assert version.tags[f"medgan.evaluation.{short}.patients"] == "2"


def test_the_version_says_on_whom_it_was_trained_and_has_a_card(registered, dataset):
    manifest = read_manifest(registered)
    assert manifest.training_patients == dataset.manifest.hashes("train")
    assert manifest.validation_patients == dataset.manifest.hashes("validation")
    assert manifest.key_id == dataset.manifest.key_id != ""
    assert "for research only; not for diagnosis" in (registered / "card.md").read_text()


@pytest.mark.parametrize("role", ["training_patients", "validation_patients"])
def test_a_test_patient_the_model_has_seen_is_refused(model, dataset, role):
    seen = dataset.manifest.hashes("test")[0]
    folder = model(**{role: [*getattr(read_manifest(model()), role), seen]})
    with pytest.raises(InputError, match=f"expected test patients it has not seen; 1 of the 2 .* validated on: {seen}"):
        measure_model(folder, dataset, name=NAME, version="1")


def test_seen_patients_are_known_in_every_data_set_of_the_output_folder(dicom, registered, dataset, place, tmp_path):
    """Two patients alone are test patients; the roles drawn before are lost here, so that nothing else holds them."""
    of_training = set(dataset.manifest.hashes("train"))
    source = next(
        folder
        for folder in (_two_of(dicom, tmp_path / str(first), first) for first in range(0, 6, 2))
        if of_training & _hashes(folder, place, tmp_path)
    )
    few = PreparedDataset.open(prepare(Request(source, TASKS["pet2ct"], 64, place.datasets, {"spacing_mm": 9.0})))
    roles = [one.model_copy(update={"role": "test"}) for one in few.manifest.patients]
    lost = PreparedDataset(few.folder, few.manifest.model_copy(update={"patients": roles}))
    with pytest.raises(InputError, match="expected test patients it has not seen"):
        refuse_seen(read_manifest(registered), lost)


def _two_of(dicom: Path, folder: Path, first: int) -> Path:
    for patient in sorted(dicom.iterdir())[first : first + 2]:
        if patient.is_dir():
            shutil.copytree(patient, folder / patient.name)
    return folder


def _hashes(source: Path, place, tmp_path: Path) -> set[str]:
    """By the output folder's own key."""
    datasets = tmp_path / "keyed"
    datasets.mkdir(exist_ok=True)
    shutil.copy(place.datasets / ".key", datasets)
    made = read_data_manifest(prepare(Request(source, TASKS["pet2ct"], SIZE, datasets)))
    return {one.hash for one in made.patients}


def test_patients_of_another_output_folder_cannot_be_compared_and_are_refused(registered, dicom, dataset, tmp_path):
    other = PreparedDataset.open(prepare(Request(dicom, TASKS["pet2ct"], SIZE, tmp_path / "datasets")))
    with pytest.raises(InputError, match="hashed with the key .* nobody can tell whether it has seen them; prepare"):
        refuse_seen(read_manifest(registered), other)


def test_images_are_not_even_prepared_in_another_output_folder(registered, dicom, tmp_path):
    with pytest.raises(InputError, match="hashed with the key .* with a new key, so nobody can tell"):
        dataset_for_model(
            str(dicom), read_manifest(registered), place=find_place(tmp_path / "new", "sqlite://"), console=Console()
        )
    assert not list(tmp_path.iterdir())


def test_a_model_of_patients_is_not_measured_on_phantoms(model, dataset):
    with pytest.raises(InputError, match="expected images of patients, as the model was trained on; they are of phan"):
        measure_model(model(name="medgan-pet2ct"), dataset, name="medgan-pet2ct", version="1")


def test_a_model_that_names_no_patients_is_refused(model, dataset):
    with pytest.raises(InputError, match="does not say on which patients it was trained; register it again"):
        measure_model(model(key_id=""), dataset, name=NAME, version="1")


def test_a_data_set_that_names_no_key_is_refused(registered, dataset):
    unknown = PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"key_id": ""}))
    with pytest.raises(InputError, match="does not say with which key its patients were hashed; prepare it again"):
        refuse_seen(read_manifest(registered), unknown)


def test_a_data_set_of_before_keys_were_named_is_brought_up_to_date_by_preparing_it_again(dicom, tmp_path):
    request = Request(dicom, TASKS["pet2ct"], SIZE, tmp_path / "datasets")
    folder = prepare(request)
    named = read_data_manifest(folder)
    store_manifest(folder, named.model_copy(update={"key_id": ""}))
    assert read_data_manifest(prepare(request)) == named


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "pet_denoise"}, "expected images for pet_denoise; they are for pet2ct"),
        (
            {"spacing_mm": 1.25},
            r"expected pixels of 1.25 mm, .* they are of .* mm \(medgan prepare --set spacing_mm=1.25",
        ),
        (
            {"source_window": [0, 20]},
            r"expected the source_window \(0.0, 20.0\) of the model; the data set's is \(0.0, 10",
        ),
        ({"target_window": [0, 20]}, "expected the target_window"),
    ],
)
def test_a_model_for_other_images_is_refused(model, dataset, fields, message):
    with pytest.raises(InputError, match=message):
        refuse_unfit(read_manifest(model(**fields)), dataset)


def test_a_size_that_the_network_cannot_halve_is_refused(registered, dataset):
    odd = PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"size": 33}))
    with pytest.raises(InputError, match="expected slices of a multiple of 32 px; those of the data are 33"):
        measure_model(registered, odd, name=NAME, version="1")


def test_damaged_weights_are_refused(model, dataset):
    folder = model()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{WEIGHTS}: expected sha256 .* the file is damaged"):
        measure_model(folder, dataset, name=NAME, version="1")


def test_a_model_whose_output_is_no_image_fails_with_the_reason(model, dataset):
    folder = model()
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    model(weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    with pytest.raises(JobError, match=f"{NAME} version 1: the generator's output is the same whatever the source"):
        measure_model(folder, dataset, name=NAME, version="1")


def test_the_test_set_is_known_by_its_patients_and_arrays_alone(dataset):
    patients = dataset.manifest.patients
    fewer = [one for one in patients if one.role != "train"]
    other = [one.model_copy(update={"sha256": {"source.npy": "0"}}) if one.role == "test" else one for one in patients]
    ours, same, changed = (
        evaluation.test_set_of(PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"patients": some})))
        for some in (patients, fewer[::-1], other)
    )
    assert ours == same != changed


def test_images_on_another_grid_are_prepared_on_the_models(dicom, registered, dataset, place):
    other = read_manifest(registered).model_copy(update={"spacing_mm": 12.5, "source_window": (0.0, 5.0)})
    made = dataset_for_model(str(dicom), other, place=place, console=Console(quiet=True))
    assert made.manifest.spacing_mm == 12.5 and made.folder != dataset.folder
    refuse_unfit(other, made)
    refuse_seen(other, made)


def test_random_features_are_told_from_pretrained_ones_and_from_none(model, dataset):
    config = read_manifest(model()).config
    styled = config | {"loss": config["loss"] | {"lambda_style": 1.0}}
    folder = model(config=styled | {"extractor": config["extractor"] | {"weights": "random"}})
    assert not measure_model(folder, dataset, name=NAME, version="1").pretrained


@pytest.mark.timeout(120)
def test_the_command_prints_the_table_and_nothing_of_the_engines(evaluated, dataset, place):
    command = ["evaluate", "--model", f"models:/{NAME}/1", "--data", str(dataset.folder), "--output", str(place.output)]
    done = subprocess.run(
        [sys.executable, "-m", "medgan.cli", *command], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "test patient" in done.stdout


def test_a_model_that_is_not_registered_is_refused(place, dataset):
    request = EvaluateRequest(f"models:/{NAME}@nobody", str(dataset.folder), place)
    with pytest.raises(InputError, match=f"--model models:/{NAME}@nobody: no such model"):
        evaluate_model(request, Console(quiet=True))
