"""Registers and fetches models as MLflow's versions, and reads and moves the aliases of deployed versions."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

import medgan
from medgan.errors import InputError, JobError
from medgan.inference.saved_model import MANIFEST
from medgan.paths import redacted
from medgan.registry.integrity import WEIGHTS_TAG, check_digests, digests_of

REQUIREMENTS = ("torch", "numpy", "SimpleITK", "safetensors", "pydantic")
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's errors have these codes where there is no such model, version or alias."""
SLICES = Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1))])
WINDOW = ParamSchema([ParamSpec("window", DataType.double, [], shape=(-1,))])
"""It is (low, high) of the volume, for sources without a window of their own, such as MR."""
EXAMPLE_SHAPE = (2, 16, 16)
ARBITRARY = (0.0, 1000.0)
"""An example's values lie between these where the source has no unit."""


def register(
    folder: Path, *, name: str, run_id: str, uri: str, code: Path, tags: Mapping[str, Any], description: str
) -> str:
    """Logs a model to a run and registers it, unless the same weights are already registered; returns its version.

    Args:
        folder: folder that `medgan.inference.saved_model.save_model` wrote.
        code: file of the pyfunc ("models from code": nothing is pickled).
        tags: facts about the version; the digests of its files are added.

    Raises:
        JobError: the store is away, or refuses.
    """
    tags = {**tags, **digests_of(folder)}
    try:
        number = version_of_run(name, run_id, uri=uri, weights=tags[WEIGHTS_TAG])
        if number is None:
            number = _log(folder, name=name, run_id=run_id, uri=uri, code=code, tags=tags)
        MlflowClient(tracking_uri=uri).update_model_version(name, number, description)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise JobError("E-REGISTRY-02", uri=redacted(uri), name=name, reason=reason) from None
    return number


def _log(folder: Path, *, name: str, run_id: str, uri: str, code: Path, tags: Mapping[str, Any]) -> str:
    """Makes a version with its tags in one step; they show it if a crash cut off the steps after it."""
    mlflow.set_tracking_uri(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={"model": str(folder)},
            signature=ModelSignature(inputs=SLICES, outputs=SLICES, params=WINDOW),
            input_example=_example(folder),
            pip_requirements=[
                f"medgan=={medgan.__version__}",
                *(f"{package}=={version(package)}" for package in REQUIREMENTS),
            ],
        )
    tagged = {key: str(value) for key, value in tags.items()}
    return str(mlflow.register_model(logged.model_uri, name, tags=tagged).version)


def _example(folder: Path) -> np.ndarray:
    """Returns two slices in the source's unit, from one end of its window to the other."""
    low, high = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["source_window"] or ARBITRARY
    return np.linspace(low, high, num=np.prod(EXAMPLE_SHAPE), dtype=np.float32).reshape(EXAMPLE_SHAPE).round(2)


def point(name: str, alias: str, number: str, *, uri: str) -> None:
    """Points an alias to a version."""
    MlflowClient(tracking_uri=uri).set_registered_model_alias(name, alias, number)


def holder(name: str, alias: str, *, uri: str) -> str | None:
    """Returns the version that an alias names; None if there is no such model or alias."""
    try:
        return str(MlflowClient(tracking_uri=uri).get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def version_of_run(name: str, run_id: str, *, uri: str, weights: str | None = None) -> str | None:
    """Returns the version registered from a run, with these weights where they are given; None if there is none."""
    found = MlflowClient(tracking_uri=uri).search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    fitting = (one for one in found if weights is None or one.tags.get(WEIGHTS_TAG) == weights)
    return next((str(one.version) for one in fitting), None)


@contextmanager
def fetched(model: str, *, uri: str) -> Iterator[tuple[Path, str, str]]:
    """Yields a copy of a registered model on this machine, and removes it afterwards.

    Args:
        model: `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Yields:
        The folder for `medgan.inference.saved_model.load_translator`, the model's name, and its version.

    Raises:
        InputError: the URI is malformed, the store or the model does not exist, another program made the model, or
            its files are not those that were registered.
    """
    name, number = resolve(model, uri)
    mlflow.set_tracking_uri(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory(prefix="medgan-model-") as target:
        copied = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}", dst_path=target))
        found = next(copied.glob(f"artifacts/*/{MANIFEST}"), None)
        if found is None:
            raise InputError("E-REGISTRY-03", model=model, manifest=MANIFEST)
        tags = MlflowClient(tracking_uri=uri).get_model_version(name, number).tags
        check_digests(found.parent, tags, f"models:/{name}/{number}")
        yield found.parent, name, number


def resolve(model: str, uri: str) -> tuple[str, str]:
    """Returns the name and the version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names now.

    Raises:
        InputError: the URI is malformed, or the store, the model or the alias does not exist.
    """
    parts = re.fullmatch(r"models:/([^@]+)(?:@(.+)|/([^@/]+))", model, re.DOTALL)
    if parts is None:
        raise InputError("E-REGISTRY-04", model=model)
    name, alias, number = parts.groups()
    database = uri.removeprefix("sqlite:///")
    if uri.startswith("sqlite:///") and not Path(database).exists():
        raise InputError("E-REGISTRY-05", model=model, database=database)
    client = MlflowClient(tracking_uri=uri)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        reason = str(error).splitlines()[0]
    else:
        return found.name, str(found.version)
    known = ", ".join(sorted(entry.name for entry in client.search_registered_models())) or "none"
    raise InputError("E-REGISTRY-06", model=model, uri=redacted(uri), reason=reason, known=known)


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Turns an error of a store that is away, or that refuses, into a JobError that names the store and its reason."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # an outage is reported within seconds
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    try:
        yield
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise JobError("E-REGISTRY-07", uri=redacted(uri), reason=reason) from None
