"""Models are registered in a real MLflow store, named by aliases, fetched, and used to predict."""

import hashlib
import json
import socket
from pathlib import Path

import mlflow
import numpy as np
import pytest
from refusal import refusal
from safetensors.torch import load_file, save_file

import medgan.inference
from medgan.config import Config, with_values
from medgan.errors import InputError, JobError
from medgan.inference.saved_model import MANIFEST, WEIGHTS, ModelManifest, load_translator, save_model
from medgan.inference.translator import translate_slices
from medgan.registry.integrity import MANIFEST_TAG, WEIGHTS_TAG
from medgan.registry.versions import fetched, holder, point, reached, register, resolve, version_of_run
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.training.build_networks import build_generator

NAME = "medgan-pet2ct-phantom"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Returns (uri, run id, model folder) of a store with one registered version."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    run = MlflowStudy(uri, "medgan/pet2ct-phantom", artifacts=folder / "artifacts", study="s", key="k").trial(0)
    config = with_values(Config(), {"data.size": 32, "generator.base_channels": 4})
    manifest = ModelManifest(
        name=NAME,
        task="pet2ct",
        config=config.model_dump(mode="json"),
        spacing_mm=5.0,
        size=32,
        source_window=(0.0, 10.0),
        target_window=(-1000.0, 2000.0),
        data_digest="d" * 64,
    )
    save_model(folder / "model", generator_state=build_generator(config).state_dict(), manifest=manifest)
    register(
        folder / "model",
        name=NAME,
        run_id=run.run_id,
        uri=uri,
        code=Path(medgan.inference.__file__).parent / "pyfunc.py",
        tags={"test/ssim": 0.5},
        description="for research only",
    )
    return uri, run.run_id, folder / "model"


def test_version_of_run_finds_registered_run_only(store):
    uri, run_id, _ = store
    assert version_of_run(NAME, run_id, uri=uri) == "1"
    assert version_of_run(NAME, "0" * 32, uri=uri) is None


def test_point_sets_alias_that_holder_returns(store):
    uri, _, _ = store
    assert holder(NAME, "champion", uri=uri) is None
    point(NAME, "champion", "1", uri=uri)
    assert holder(NAME, "champion", uri=uri) == "1"


def test_fetched_yields_temporary_copy_of_saved_model(store):
    uri, _, folder = store
    with fetched(f"models:/{NAME}/1", uri=uri) as (copy, name, version):
        assert (name, version) == (NAME, "1")
        assert (copy / "generator.safetensors").read_bytes() == (folder / "generator.safetensors").read_bytes()
    assert not copy.exists()


def test_registered_pyfunc_predicts_same_as_network(store):
    uri, _, folder = store
    mlflow.set_tracking_uri(uri)
    slices = np.random.default_rng(0).uniform(0, 12, (3, 30, 40)).astype(np.float32)
    predicted = mlflow.pyfunc.load_model(f"models:/{NAME}/1").predict(slices)
    np.testing.assert_allclose(predicted, translate_slices(load_translator(folder), slices), atol=0.05)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("medgan-pet2ct@champion", refusal("E-REGISTRY-04", model="medgan-pet2ct@champion")),
        ("models:/nothing", refusal("E-REGISTRY-04", model="models:/nothing")),
        ("models:/other@champion", refusal("E-REGISTRY-06", model="models:/other@champion", known=NAME)),
        (f"models:/{NAME}/7", refusal("E-REGISTRY-06", model=f"models:/{NAME}/7")),
        (f"models:/{NAME}@nobody", refusal("E-REGISTRY-06", model=f"models:/{NAME}@nobody")),
    ],
)
def test_fetched_refuses_missing_or_malformed_model(store, model, expected):
    with pytest.raises(InputError, check=expected), fetched(model, uri=store[0]):
        pass


def test_fetched_refuses_missing_store_and_makes_none(tmp_path):
    with (
        pytest.raises(InputError, check=refusal("E-REGISTRY-05", database=tmp_path / "mlflow.db")),
        fetched("models:/a@champion", uri=f"sqlite:///{tmp_path / 'mlflow.db'}"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_registered_version_has_signature_example_and_pinned_requirements(store):
    uri, _, _ = store
    mlflow.set_tracking_uri(uri)
    information = mlflow.models.get_model_info(f"models:/{NAME}/1")
    assert [one["tensor-spec"] for one in information.signature.inputs.to_dict()] == [
        {"dtype": "float32", "shape": (-1, -1, -1)}
    ]
    assert [one.name for one in information.signature.params] == ["window"]
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    example = np.asarray(model.input_example)
    assert len(example) == 2 and (example.min(), example.max()) == (0.0, 10.0)
    assert model.predict(example.astype(np.float32)).shape == example.shape
    lines = Path(mlflow.pyfunc.get_model_dependencies(f"models:/{NAME}/1")).read_text().split()
    assert {"medgan", "torch", "numpy", "SimpleITK", "safetensors", "pydantic"} <= {
        line.partition("==")[0] for line in lines
    }
    assert all("==" in line for line in lines), "every requirement is pinned"


def test_fetched_refuses_model_of_other_program(store, tmp_path):
    uri, run_id, _ = store
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("no medgan model")
    (tmp_path / "code.py").write_text(
        "import mlflow\n"
        "class Other(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: list[str], params=None):\n        return model_input\n"
        "mlflow.models.set_model(Other())\n"
    )
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.pyfunc.log_model(
            name="other",
            python_model=str(tmp_path / "code.py"),
            artifacts={"model": str(tmp_path / "other")},
            registered_model_name="other",
            pip_requirements=[],
        )
    with (
        pytest.raises(InputError, check=refusal("E-REGISTRY-03", model="models:/other/1", manifest="model.json")),
        fetched("models:/other/1", uri=uri),
    ):
        pass


@pytest.mark.timeout(90)
def test_reached_reports_store_that_is_away_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # does not listen
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(JobError, check=refusal("E-REGISTRY-07", uri=away)), reached(away):
            resolve("models:/medgan-pet2ct@champion", away)


@pytest.fixture
def stored_model(store):
    """The folder of version 1 in the store; its files are as before at the end."""
    uri, _, _ = store
    (weights,) = Path(uri.removeprefix("sqlite:///")).parent.glob(f"artifacts/**/{WEIGHTS}")
    before = {path: path.read_bytes() for path in (weights, weights.with_name(MANIFEST))}
    yield weights.parent
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize("together", [False, True], ids=["weights", "weights and manifest"])
def test_fetched_refuses_files_other_than_registered(store, stored_model, together):
    uri, _, _ = store
    weights, manifest = stored_model / WEIGHTS, stored_model / MANIFEST
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    if together:
        content = json.loads(manifest.read_text())
        content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(content))
    expected = refusal("E-REGISTRY-08", model=f"models:/{NAME}/1", file=WEIGHTS)
    with pytest.raises(InputError, check=expected), fetched(f"models:/{NAME}/1", uri=uri):
        pass


def test_fetched_accepts_version_without_digests(store):
    uri, _, _ = store
    client = mlflow.MlflowClient(tracking_uri=uri)
    for tag in (WEIGHTS_TAG, MANIFEST_TAG):
        client.delete_model_version_tag(NAME, "1", tag)
    with fetched(f"models:/{NAME}/1", uri=uri) as (folder, _, _):
        assert load_translator(folder)
