"""Makes a small data set of phantoms, and registers a generator with it in a real MLflow store."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from medgan.config import Config, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.inference.saved_model import MANIFEST
from medgan.paths import find_place
from medgan.registry.versions import fetched
from medgan.tasks import TASKS
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.training.build_networks import build_generator
from medgan.training.held_out import measure_on_test
from medgan.training.runtime import SingleProcess
from medgan.workflows.conclusion import register_generator


@pytest.fixture(scope="session")
def model_name() -> str:
    return "medgan-pet2ct-phantom"


@pytest.fixture(scope="session")
def size() -> int:
    """Returns the size of the images in pixels."""
    return 32


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Writes six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=6, matrix=48)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return find_place(tmp_path_factory.mktemp("evaluated") / "home", tracking_uri="")


@pytest.fixture(scope="module", autouse=True)
def own_store(place):
    """Unsets the address of a store that MLflow may have left in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield


@pytest.fixture(scope="module")
def dataset(dicom, place, size):
    return PreparedDataset.open(prepare(PrepareRequest(dicom, TASKS["pet2ct"], size, place.datasets)))


@pytest.fixture(scope="module")
def trained(dataset, place, model_name, size):
    """Registers an untrained generator; returns its test results."""
    config = with_values(Config(), {"data.size": size, "generator.base_channels": 4})
    weights = place.output / "best.safetensors"
    save_file(build_generator(config).state_dict(), weights)
    study = MlflowStudy(place.tracking_uri, "medgan/pet2ct-phantom", artifacts=place.artifacts, study="s", key="k")
    test, _ = measure_on_test(config, weights, dataset, SingleProcess())
    with study:
        register_generator(
            model_name, config, weights, dataset, run_id=study.run.run_id, uri=place.tracking_uri, test=test
        )
    return test


@pytest.fixture(scope="module")
def registered(trained, place, tmp_path_factory, model_name):
    """Returns a folder with the registered model."""
    with fetched(f"models:/{model_name}/1", uri=place.tracking_uri) as (folder, _, _):
        return Path(shutil.copytree(folder, tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def model(registered, tmp_path):
    """Copies the registered model; `model(field=value)` changes the manifest of the copy."""
    folder = Path(shutil.copytree(registered, tmp_path / "changed"))

    def changed(**fields):
        content = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(content | fields))
        return folder

    return changed
