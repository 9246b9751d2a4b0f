"""Opens MLflow's store or refuses it clearly; reads runs page by page, and one run back."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from medgan.errors import InputError
from medgan.locks import opening
from medgan.paths import redacted

STUDY_TAG, KEY_TAG, ROOT_TAG = "medgan.study", "medgan.study_key", "medgan.root"
PARENT_TAG, NOTE_TAG, STATE_TAG = "mlflow.parentRunId", "mlflow.note.content", "medgan.state"
STUDY_ROOT = "study"
"""The study's own run has this value of `ROOT_TAG`."""
PAGE = 1000


@contextmanager
def opened(uri: str) -> Iterator[MlflowClient]:
    """Yields a client; an error of the opened store becomes an InputError of one line."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # `medgan.tracking.outage` repeats, and can be ended
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with opening(uri):
            yield MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError, ImportError) as error:
        raise InputError("E-MLFLOW-04", uri=redacted(uri), splitlines=str(error).splitlines()[0]) from None


def every_run(client: MlflowClient, experiment_ids: list[str], query: str) -> Iterator[Run]:
    """Yields the runs that match and were not deleted, page by page; change no run before all are read."""
    token: str | None = ""
    while token is not None:
        page = client.search_runs(experiment_ids, query, ViewType.ACTIVE_ONLY, PAGE, page_token=token or None)
        yield from page
        token = page.token or None


@dataclass(frozen=True)
class RunRecord:
    """Holds a run read back: its tags, validation metric -> epoch -> value, and name -> content of its JSON files."""

    tags: Mapping[str, str]
    history: Mapping[str, Mapping[int, float]]
    files: Mapping[str, Any]


def read_run(uri: str, run_id: str) -> RunRecord:
    """Reads a run back; raises InputError where the store or the run does not exist."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError("E-MLFLOW-05", uri=redacted(uri))
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with opened(uri) as client, tempfile.TemporaryDirectory() as folder:
        try:
            data = client.get_run(run_id).data
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise InputError("E-MLFLOW-06", run_id=run_id, uri=redacted(uri), splitlines=reason) from None
        metrics = [name for name in data.metrics if name.startswith("val/")]
        history = {name: {one.step: one.value for one in client.get_metric_history(run_id, name)} for name in metrics}
        names = [one.path for one in client.list_artifacts(run_id) if one.path.endswith(".json")]
        files = {name: json.loads(Path(client.download_artifacts(run_id, name, folder)).read_text()) for name in names}
    return RunRecord(data.tags, history, files)
