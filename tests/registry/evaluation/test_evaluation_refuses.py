"""`medgan evaluate` refuses patients that the model has or may have seen, unfit images, and damaged models."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from refusal import refusal
from safetensors.torch import load_file, save_file

from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import read_manifest as read_data_manifest
from medgan.data.manifest import store_manifest
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.errors import InputError, JobError
from medgan.inference.saved_model import WEIGHTS, read_manifest
from medgan.paths import find_place
from medgan.registry.evaluation import dataset_for_model, measure_model, refuse_unfit
from medgan.registry.leakage import refuse_seen
from medgan.tasks import TASKS
from medgan.workflows.evaluate import evaluate_model


@pytest.mark.parametrize("role", ["training_patients", "validation_patients"])
def test_measure_model_refuses_test_patient_of_training(model, dataset, role, model_name):
    seen = dataset.manifest.hashes("test")[0]
    folder = model(**{role: [*getattr(read_manifest(model()), role), seen]})
    with pytest.raises(InputError, check=refusal("E-EVALUATE-08", num_seen=1, num_tested=2, seen=seen)):
        measure_model(folder, dataset, name=model_name, version="1")


@pytest.mark.parametrize(
    ("seen", "alone", "tested", "tested_alone", "refused"),
    [
        ("7", "", "7A", "7", True),  # trained on before the ID had an issuer
        ("7A", "7", "7", "", True),  # tested without the issuer
        ("7A", "7", "7A", "7", True),
        ("7A", "7", "7B", "7", False),  # another person of the same ID
    ],
)
def test_refuse_seen_tries_hashes_with_and_without_issuer(model, dataset, seen, alone, tested, tested_alone, refused):
    manifest = read_manifest(model()).model_copy(
        update={"training_patients": (seen,), "validation_patients": (), "patients_without_issuer": (alone,)}
    )
    one = next(one for one in dataset.manifest.patients if one.role == "test")
    one = one.model_copy(update={"hash": tested, "hash_without_issuer": tested_alone})
    other = PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"patients": [one]}))
    if refused:
        with pytest.raises(InputError, check=refusal("E-EVALUATE-08", seen=tested)):
            refuse_seen(manifest, other)
    else:
        refuse_seen(manifest, other)


def test_refuse_seen_knows_patients_in_every_data_set_of_output_folder(
    dicom, registered, dataset, place, tmp_path, size
):
    """Two patients alone are all test patients; the roles that were drawn before are removed here."""
    of_training = set(dataset.manifest.hashes("train"))
    source = next(
        folder
        for folder in (_two_of(dicom, tmp_path / str(first), first) for first in range(0, 6, 2))
        if of_training & _hashes(folder, place, tmp_path, size)
    )
    few = PreparedDataset.open(
        prepare(PrepareRequest(source, TASKS["pet2ct"], 64, place.datasets, {"spacing_mm": 9.0}))
    )
    roles = [one.model_copy(update={"role": "test"}) for one in few.manifest.patients]
    lost = PreparedDataset(few.folder, few.manifest.model_copy(update={"patients": roles}))
    with pytest.raises(InputError, check=refusal("E-EVALUATE-08")):
        refuse_seen(read_manifest(registered), lost)


def _two_of(dicom: Path, folder: Path, first: int) -> Path:
    for patient in sorted(dicom.iterdir())[first : first + 2]:
        if patient.is_dir():
            shutil.copytree(patient, folder / patient.name)
    return folder


def _hashes(source: Path, place, tmp_path: Path, size) -> set[str]:
    """Returns the patients of a source, hashed with the key of the output folder."""
    datasets = tmp_path / "keyed"
    datasets.mkdir(exist_ok=True)
    shutil.copy(place.datasets / ".key", datasets)
    made = read_data_manifest(prepare(PrepareRequest(source, TASKS["pet2ct"], size, datasets)))
    return {one.hash for one in made.patients}


def test_refuse_seen_refuses_patients_of_other_output_folder(registered, dicom, dataset, tmp_path, size):
    other = PreparedDataset.open(prepare(PrepareRequest(dicom, TASKS["pet2ct"], size, tmp_path / "datasets")))
    manifest = read_manifest(registered)
    expected = refusal("E-EVALUATE-10", key_id=manifest.key_id, key=other.manifest.key_id)
    with pytest.raises(InputError, check=expected):
        refuse_seen(manifest, other)


def test_dataset_for_model_prepares_nothing_in_other_output_folder(registered, dicom, tmp_path):
    with pytest.raises(InputError, check=refusal("E-EVALUATE-10", key="a new key")):
        dataset_for_model(str(dicom), read_manifest(registered), place=find_place(tmp_path / "new", "sqlite://"))
    assert not list(tmp_path.iterdir())


def test_measure_model_refuses_phantoms_for_model_of_patients(model, dataset):
    with pytest.raises(InputError, check=refusal("E-EVALUATE-03", wanted="patients", there="phantoms")):
        measure_model(model(name="medgan-pet2ct"), dataset, name="medgan-pet2ct", version="1")


def test_measure_model_refuses_model_without_recorded_patients(model, dataset, model_name):
    with pytest.raises(InputError, check=refusal("E-EVALUATE-09", manifest_name=model_name)):
        measure_model(model(key_id=""), dataset, name=model_name, version="1")


def test_refuse_seen_refuses_data_set_without_key(registered, dataset):
    unknown = PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"key_id": ""}))
    with pytest.raises(InputError, check=refusal("E-EVALUATE-07", named=f"data set {dataset.digest[:12]}")):
        refuse_seen(read_manifest(registered), unknown)


def test_prepare_adds_key_to_data_set_without_key(dicom, tmp_path, size):
    request = PrepareRequest(dicom, TASKS["pet2ct"], size, tmp_path / "datasets")
    folder = prepare(request)
    named = read_data_manifest(folder)
    store_manifest(folder, named.model_copy(update={"key_id": ""}))
    assert read_data_manifest(prepare(request)) == named


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"task": "pet_denoise"}, refusal("E-EVALUATE-04", task="pet_denoise", task_name="pet2ct")),
        ({"spacing_mm": 1.25}, refusal("E-EVALUATE-05", spacing_mm="1.25")),
        ({"axis": "coronal"}, refusal("E-EVALUATE-11", axis="coronal", axis_2="axial")),
        ({"source_window": [0, 20]}, refusal("E-EVALUATE-06", side="source", window="(0.0, 20.0)", own="(0.0, 10.0)")),
        ({"target_window": [0, 20]}, refusal("E-EVALUATE-06", side="target", window="(0.0, 20.0)")),
    ],
)
def test_refuse_unfit_refuses_model_for_other_images(model, dataset, fields, expected):
    with pytest.raises(InputError, check=expected):
        refuse_unfit(read_manifest(model(**fields)), dataset)


def test_measure_model_refuses_size_that_network_cannot_halve(registered, dataset, model_name):
    odd = PreparedDataset(dataset.folder, dataset.manifest.model_copy(update={"size": 33}))
    with pytest.raises(InputError, check=refusal("E-EVALUATE-01", name=model_name, divisor=32, size=33)):
        measure_model(registered, odd, name=model_name, version="1")


def test_measure_model_refuses_damaged_weights(model, dataset, model_name):
    folder = model()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(InputError, check=refusal("E-MODEL-05", folder=folder / WEIGHTS)):
        measure_model(folder, dataset, name=model_name, version="1")


def test_measure_model_fails_where_output_is_constant(model, dataset, model_name):
    folder = model()
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    model(weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    with pytest.raises(JobError, check=refusal("E-EVALUATE-02", name=model_name, version=1)) as failed:
        measure_model(folder, dataset, name=model_name, version="1")
    assert failed.value.fields["error"].code == "E-TRAIN-04"


def test_evaluate_model_refuses_unregistered_model(place, dataset, model_name):
    model = f"models:/{model_name}@nobody"
    with pytest.raises(InputError, check=refusal("E-REGISTRY-06", model=model, known=model_name)):
        evaluate_model(model, str(dataset.folder), place)
