from __future__ import annotations

import inspect
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel
from refusal import refusal

from medgan.config import Config
from medgan.data.intensity import to_network
from medgan.errors import InputError
from medgan.inference import pyfunc
from medgan.inference.saved_model import ModelManifest, load_translator, save_model
from medgan.inference.translator import translate_slices
from medgan.registry.versions import SLICES, WINDOW
from medgan.training.build_networks import build_generator

pytestmark = pytest.mark.unit


def loaded(model_folder: Path, path: Path) -> PyFuncModel:
    mlflow.pyfunc.save_model(
        path=path,
        python_model=pyfunc.__file__,
        artifacts={"model": str(model_folder)},
        pip_requirements=["medgan"],
        signature=ModelSignature(inputs=SLICES, outputs=SLICES, params=WINDOW),
    )
    return mlflow.pyfunc.load_model(str(path))


@pytest.fixture
def saved(model_folder: Path, tmp_path: Path) -> Path:
    loaded(model_folder, tmp_path / "pyfunc")
    return tmp_path / "pyfunc"


@pytest.fixture
def for_mr(tmp_path: Path, config: Config, manifest: ModelManifest) -> PyFuncModel:
    """Saves a model whose source has no window."""
    windowless = {"task": "mr_motion", "source_window": None, "target_window": None}
    save_model(
        tmp_path / "mr",
        generator_state=build_generator(config).state_dict(),
        manifest=manifest.model_copy(update=windowless),
    )
    return loaded(tmp_path / "mr", tmp_path / "pyfunc-mr")


def test_pyfunc_loaded_by_mlflow_predicts_same_as_medgan(saved: Path, model_folder: Path) -> None:
    suv = np.random.default_rng(4).uniform(0, 10, (2, 12, 10)).astype(np.float32)
    output = mlflow.pyfunc.load_model(str(saved)).predict(suv)
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, translate_slices(load_translator(model_folder), suv))


def test_saved_pyfunc_holds_no_pickle(saved: Path) -> None:
    assert not [path for path in saved.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]


def test_load_context_has_argument_named_context() -> None:
    """MLflow passes the argument by this name; another name would fail only when the model is served."""
    assert list(inspect.signature(pyfunc.MedganModel.load_context).parameters) == ["self", "context"]


@pytest.mark.parametrize("batch", [1, 3])
def test_pyfunc_predicts_same_as_network_for_any_batch(saved: Path, model_folder: Path, batch: int) -> None:
    suv = np.random.default_rng(5).uniform(0, 12, (3, 16, 32)).astype(np.float32)
    model, translator = mlflow.pyfunc.load_model(str(saved)), load_translator(model_folder)
    hu = np.concatenate([model.predict(suv[start : start + batch]) for start in range(0, 3, batch)])
    with torch.inference_mode():
        expected = translator.network(torch.from_numpy(to_network(suv, (0.0, 10.0)))[:, None])[:, 0].numpy()
    assert np.ptp(hu) > 1
    np.testing.assert_allclose(to_network(hu, (-1000.0, 2000.0)), expected, atol=1e-5)
    np.testing.assert_allclose(hu, (expected + 1) * 1500 - 1000, atol=0.05)


def test_pyfunc_with_window_of_volume_predicts_slice_as_in_volume(for_mr: PyFuncModel) -> None:
    volume = np.random.default_rng(6).uniform(0, 800, (4, 16, 16)).astype(np.float32)
    window = [float(value) for value in np.percentile(volume, (0.5, 99.5))]
    whole = for_mr.predict(volume)
    np.testing.assert_allclose(for_mr.predict(volume[1:2], params={"window": window}), whole[1:2], atol=1e-2)
    assert np.abs(for_mr.predict(volume[1:2] / 2) - whole[1:2]).max() > 1, (
        "without the window, the window of the slice is used"
    )


@pytest.mark.parametrize("window", [[5.0, 5.0], [1.0], [3.0, 2.0], [1.0, 2.0, 3.0]])
def test_pyfunc_refuses_malformed_window(for_mr: PyFuncModel, window: list[float]) -> None:
    with pytest.raises(InputError, check=refusal("E-MODEL-02", values=window)):
        for_mr.predict(np.ones((1, 8, 8), dtype=np.float32), params={"window": window})


def test_pyfunc_refuses_window_where_model_has_window(saved: Path) -> None:
    with pytest.raises(InputError, check=refusal("E-MODEL-01", own=0.0, own_2=10.0, values=[0.0, 5.0])):
        mlflow.pyfunc.load_model(str(saved)).predict(
            np.ones((1, 8, 8), dtype=np.float32), params={"window": [0.0, 5.0]}
        )
