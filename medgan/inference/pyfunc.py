"""Defines the registered model, which MLflow loads by path ("models from code") and which scales intensities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from medgan.errors import InputError
from medgan.inference.saved_model import load_translator
from medgan.inference.translator import translate_slices


class MedganModel(PythonModel):
    """Translates slices from the source's unit to the target's, each one whole, without tiles."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the artifact `model`: a folder written by `medgan.inference.saved_model.save_model`."""
        self.translator = load_translator(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Returns the translated slices, float32 (B, rows, columns) in the target's unit.

        Args:
            model_input: (B, rows, columns) in the source's unit, at the spacing the model was trained at, of any size.
            params: `window`: (low, high) of the volume, in its unit, for sources without a window of their own, such
                as MR. The default is the window of these slices, so that a batch should be a whole volume.

        Raises:
            InputError: the shape is wrong, values are not finite, or the window does not fit.
        """
        values = np.asarray(model_input, dtype=np.float32)
        return translate_slices(self.translator, values, window=self._window((params or {}).get("window", [])))

    def _window(self, given: Sequence[float]) -> tuple[float, float] | None:
        if len(given) == 0:
            return None
        own, values = self.translator.task.source.window, [float(value) for value in given]
        if own is not None:
            raise InputError("E-MODEL-01", own=own[0], own_2=own[1], values=values)
        if len(values) != 2 or not values[0] < values[1]:
            raise InputError("E-MODEL-02", values=values)
        return values[0], values[1]


mlflow.models.set_model(MedganModel())
