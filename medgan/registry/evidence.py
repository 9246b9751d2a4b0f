"""Stores the evidence about a version with the run that trained it; the version's tags name the evidence."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medgan.errors import InputError, JobError
from medgan.paths import redacted


def attach(name: str, number: str, *, files: Path, folder: str, tags: Mapping[str, Any], uri: str) -> None:
    """Uploads files to the run of a version, then sets the tags that describe them on the version itself.

    Args:
        files: folder whose files are uploaded.
        folder: folder for them among the run's artifacts.

    Raises:
        InputError: the version was registered without a run.
        JobError: the upload failed.
    """
    client = MlflowClient(tracking_uri=uri)
    try:
        client.log_artifacts(run_of(name, number, uri=uri), str(files), folder)
        for key, value in tags.items():
            client.set_model_version_tag(name, number, key, str(value))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise JobError("E-EVIDENCE-01", uri=redacted(uri), name=name, number=number, reason=reason) from None


def read_back(name: str, number: str, path: str, *, uri: str) -> bytes | None:
    """Reads a file from the run of a version; returns None if there is no such file.

    Raises:
        InputError: the version was registered without a run.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    client = MlflowClient(tracking_uri=uri)
    run_id, parent = run_of(name, number, uri=uri), path.rpartition("/")[0]
    if not any(one.path == path for one in client.list_artifacts(run_id, parent)):
        return None
    mlflow.set_tracking_uri(uri)
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()


def run_of(name: str, number: str, *, uri: str) -> str:
    """Returns the id of the run that made a version; raises InputError if it was registered without a run."""
    run_id = MlflowClient(tracking_uri=uri).get_model_version(name, number).run_id
    if not run_id:
        raise InputError("E-EVIDENCE-02", name=name, number=number)
    return str(run_id)
