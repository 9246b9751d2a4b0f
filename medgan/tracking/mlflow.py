"""MLflow: a study's run and its trials' runs, found again after any crash by their tags."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, LifecycleStage, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from medgan.errors import InputError
from medgan.lock import opening
from medgan.place import shown
from medgan.terminal import LOG

STUDY_TAG, KEY_TAG, ROOT_TAG = "medgan.study", "medgan.study_key", "medgan.root"
PARENT_TAG, STATE_TAG = "mlflow.parentRunId", "medgan.state"
STUDY_ROOT = "study"
"""What the study's own run has for a root."""
PAGE = 1000
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's pages show runs and curves, not its pages for language models."""


class MlflowRun:
    """One run; see `medgan.tracking.tracker.Tracker`."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        known = client.get_run(run_id).data
        self.known_params = dict(known.params)
        self.last_step = int(known.metrics.get("epoch", 0))

    def params(self, values: Mapping[str, Any]) -> None:
        new = [Param(key, str(value)) for key, value in values.items() if key not in self.known_params]
        self.client.log_batch(self.run_id, params=new)
        self.known_params |= {param.key: param.value for param in new}

    def tags(self, values: Mapping[str, Any]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if 0 < step <= self.last_step:
            return
        now = int(time.time() * 1000)
        counted = {**values, "epoch": step} if step else values
        self.client.log_batch(self.run_id, [Metric(key, value, now, step) for key, value in counted.items()])
        self.last_step = max(step, self.last_step)

    def artifact(self, path: Path, folder: str = "") -> None:
        self.client.log_artifact(self.run_id, str(path), folder or None)

    def finish(self, status: str) -> None:
        self.client.set_terminated(self.run_id, status)


class MlflowStudy:
    """The runs of one study.

    Args:
        uri: the tracking store.
        experiment: its name, `medgan/<task>`.
        artifacts: where a new experiment keeps its artifacts when no server does.
        study: name of the study, and of its run.
        key: tells the study from others of the same name.

    Raises:
        InputError: the store cannot be reached.
    """

    def __init__(self, uri: str, experiment: str, *, artifacts: Path, study: str, key: str) -> None:
        location = None if uri.startswith("http") else (artifacts / experiment).as_uri()
        with _opened(uri) as self.client:
            self.experiment_id = _experiment(self.client, experiment, location)
        self.study, self.key = study, key
        self.run = self._run(study, root=STUDY_ROOT, parent=None)

    def __enter__(self) -> MlflowStudy:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = "KILLED" if kind and issubclass(kind, KeyboardInterrupt) else "FAILED"
        try:
            self.run.finish(failed if kind else "FINISHED")
        except MlflowException:  # how the job ended matters more than that a store is away
            LOG.exception("tracking: the study's run was not closed")

    def trial(self, root: int) -> MlflowRun:
        """The run of a trial, made if there is none; going again if it had ended."""
        return self._run(f"{self.study} #{root}", root=str(root), parent=self.run.run_id)

    def close_orphans(self, states: Mapping[int, str]) -> None:
        """Ends the trial runs that a dead driver left going; of trials that are not finished it says interrupted.

        Args:
            states: the status each finished trial should have, by root.
        """
        going = f"tags.`{KEY_TAG}` = '{self.key}' and attributes.status = 'RUNNING'"
        for run in list(_every_run(self.client, [self.experiment_id], going)):
            root = run.data.tags.get(ROOT_TAG, "")
            if not root.isdigit():
                continue
            if int(root) not in states:
                self.client.set_tag(run.info.run_id, STATE_TAG, "interrupted")
            self.client.set_terminated(run.info.run_id, states.get(int(root), "KILLED"))

    def dataset(self, name: str, digest: str, *, profile: str) -> None:
        """Notes the data set of the study by digest; never pixels or identifiers."""
        entity = LoggedDataset(name=name, digest=digest[:36], source_type="medgan", source=digest, profile=profile)
        self.client.log_inputs(self.run.run_id, [DatasetInput(entity, [])])

    def _run(self, name: str, *, root: str, parent: str | None) -> MlflowRun:
        query = f"tags.`{KEY_TAG}` = '{self.key}' and tags.`{ROOT_TAG}` = '{root}'"
        found = self.client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1)
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return MlflowRun(self.client, found[0].info.run_id)
        tags = {STUDY_TAG: self.study, KEY_TAG: self.key, ROOT_TAG: root} | ({PARENT_TAG: parent} if parent else {})
        return MlflowRun(self.client, self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id)


@dataclass(frozen=True)
class RunFacts:
    """What the store says of one run.

    Attributes:
        root: of its trial; `STUDY_ROOT`: the study's own run.
        parent: id of the run it is shown below; "": of none.
        status: RUNNING, FINISHED, FAILED or KILLED.
        state: how its trial ended, as it was told; "": nothing was.
        epochs: whose metrics it holds.
    """

    run_id: str
    root: str
    parent: str
    status: str
    state: str
    epochs: frozenset[int]


class StudyRuns:
    """The runs that a study has, in whichever experiment; opened without making anything.

    Args:
        uri: the tracking store.
        study: name of the study.
        key: tells the study from others of the same name.

    Raises:
        InputError: the store is not there, or cannot be reached.
    """

    def __init__(self, uri: str, *, study: str, key: str) -> None:
        self.study, self.key = study, key
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            raise InputError(f"--tracking-uri {shown(uri)}: there is no such store")
        with _opened(uri) as self.client:
            ours = self.client.search_experiments(filter_string="name LIKE 'medgan/%'")
            self.experiment_ids = [experiment.experiment_id for experiment in ours]

    def found(self) -> list[RunFacts]:
        """Every run that was not deleted, oldest first."""
        if not self.experiment_ids:
            return []
        runs = _every_run(self.client, self.experiment_ids, f"tags.`{KEY_TAG}` = '{self.key}'")
        return [self._facts(run) for run in sorted(runs, key=lambda run: run.info.start_time)]

    def delete(self, run_id: str) -> None:
        """Marks a run deleted, as MLflow does it: `mlflow gc` removes it for good."""
        self.client.delete_run(run_id)

    def merge(self, run_id: str, into: str) -> None:
        """Deletes a run that doubles another; what was shown below it is shown below the other."""
        query = f"tags.`{PARENT_TAG}` = '{run_id}'"
        for child in list(_every_run(self.client, self.experiment_ids, query)):
            self.client.set_tag(child.info.run_id, PARENT_TAG, into)
        self.delete(run_id)

    def end(self, run_id: str, status: str, state: str = "", *, end_ms: int | None = None) -> None:
        """Says how a run ended, and when, unless that is known.

        Args:
            run_id: the run.
            status: FINISHED, FAILED or KILLED.
            state: how its trial ended; "": as it is.
            end_ms: when, milliseconds since 1970; now where nobody knows.
        """
        if state:
            self.client.set_tag(run_id, STATE_TAG, state)
        self.client.set_terminated(run_id, status, self.client.get_run(run_id).info.end_time or end_ms)

    def add(
        self, root: int, *, beside: str, tags: Mapping[str, Any], params: Mapping[str, Any], start_ms: int | None
    ) -> str:
        """Makes the run of a trial below the study's run.

        Args:
            root: of the trial.
            beside: id of the study's run.
            tags: facts of the trial.
            params: its settings.
            start_ms: when it started, milliseconds since 1970.

        Returns:
            The new run's id.
        """
        own = {STUDY_TAG: self.study, KEY_TAG: self.key, ROOT_TAG: root, PARENT_TAG: beside}
        experiment = self.client.get_run(beside).info.experiment_id
        every = {key: str(value) for key, value in {**own, **tags}.items()}
        run = self.client.create_run(experiment, start_ms, every, f"{self.study} #{root}")
        MlflowRun(self.client, run.info.run_id).params(params)
        return str(run.info.run_id)

    def add_epochs(self, run_id: str, epochs: Mapping[int, Mapping[str, float]]) -> None:
        """Tells a run the metrics of epochs that it lacks."""
        now = int(time.time() * 1000)
        for step, values in sorted(epochs.items()):
            counted = {**values, "epoch": step}
            self.client.log_batch(run_id, [Metric(key, value, now, step) for key, value in counted.items()])

    def _facts(self, run: Run) -> RunFacts:
        history = self.client.get_metric_history(run.info.run_id, "epoch") if "epoch" in run.data.metrics else []
        return RunFacts(
            run_id=run.info.run_id,
            root=run.data.tags.get(ROOT_TAG, ""),
            parent=run.data.tags.get(PARENT_TAG, ""),
            status=run.info.status,
            state=run.data.tags.get(STATE_TAG, ""),
            epochs=frozenset(metric.step for metric in history),
        )


@contextmanager
def _opened(uri: str) -> Iterator[MlflowClient]:
    """A client; what fails while the store is opened is refused in a line."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # a server that is away is told within seconds
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with opening(uri):
            yield MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError, ImportError) as error:
        raise InputError(f"--tracking-uri {shown(uri)}: cannot open: {str(error).splitlines()[0]}") from None


def _experiment(client: MlflowClient, name: str, location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == LifecycleStage.DELETED:
        raise InputError(
            f"experiment {name} was deleted; mlflow experiments restore --experiment-id {found.experiment_id} "
            "brings it back"
        )
    return found.experiment_id if found else client.create_experiment(name, location, TRAINING)


def _every_run(client: MlflowClient, experiment_ids: list[str], query: str) -> Iterator[Run]:
    """The runs that fit and were not deleted, page by page; change none of them before all are read."""
    token: str | None = ""
    while token is not None:
        page = client.search_runs(experiment_ids, query, ViewType.ACTIVE_ONLY, PAGE, page_token=token or None)
        yield from page
        token = page.token or None


@dataclass(frozen=True)
class RunRecord:
    """A run read back: its tags, validation metric -> epoch -> value, and name -> content of its JSON files."""

    tags: Mapping[str, str]
    history: Mapping[str, Mapping[int, float]]
    files: Mapping[str, Any]


def read_run(uri: str, run_id: str) -> RunRecord:
    """Reads a run back; raises InputError where there is no such store, or no such run in it."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError(f"--tracking-uri {shown(uri)}: there is no such store; give --output or --tracking-uri")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with _opened(uri) as client, tempfile.TemporaryDirectory() as folder:
        try:
            told = client.get_run(run_id).data
        except MlflowException as error:
            raise InputError(f"run {run_id}: not found in {shown(uri)}: {str(error).splitlines()[0]}") from None
        metrics = [name for name in told.metrics if name.startswith("val/")]
        history = {name: {one.step: one.value for one in client.get_metric_history(run_id, name)} for name in metrics}
        names = [one.path for one in client.list_artifacts(run_id) if one.path.endswith(".json")]
        files = {name: json.loads(Path(client.download_artifacts(run_id, name, folder)).read_text()) for name in names}
    return RunRecord(told.tags, history, files)
