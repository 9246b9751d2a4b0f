from __future__ import annotations

import inspect
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest

from medgan.serving import pyfunc
from medgan.serving.model import load_translator
from medgan.serving.translate import translate_slices


@pytest.fixture
def saved(model_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "pyfunc"
    mlflow.pyfunc.save_model(
        path=path, python_model=pyfunc.__file__, artifacts={"model": str(model_folder)}, pip_requirements=["medgan"]
    )
    return path


def test_mlflow_loads_the_code_by_path_and_predicts_as_medgan_does(saved: Path, model_folder: Path) -> None:
    suv = np.random.default_rng(4).uniform(0, 10, (2, 12, 10)).astype(np.float32)
    output = mlflow.pyfunc.load_model(str(saved)).predict(suv)
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, translate_slices(load_translator(model_folder), suv))


def test_nothing_is_pickled(saved: Path) -> None:
    assert not [path for path in saved.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]


def test_the_hooks_argument_is_called_context() -> None:
    """MLflow passes it by that name and fails otherwise only when the model is served."""
    assert list(inspect.signature(pyfunc.MedganModel.load_context).parameters) == ["self", "context"]
