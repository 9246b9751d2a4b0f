"""The registered model's code, loaded by MLflow by path ("models from code"): intensity scaling lives inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from medgan.serving.model import load_translator
from medgan.serving.translate import translate_slices


class MedganModel(PythonModel):
    """Slices in the source's unit to slices in the target's."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the artifact `model`: a folder written by `medgan.serving.model.save_model`."""
        self.translator = load_translator(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """float32 (B, rows, columns) in the target's unit.

        Args:
            context: unused; MLflow passes it.
            model_input: (B, rows, columns) in the source's unit, at the spacing the model was trained at.
            params: unused; MLflow passes it.
        """
        return translate_slices(self.translator, np.asarray(model_input, dtype=np.float32))


mlflow.models.set_model(MedganModel())
