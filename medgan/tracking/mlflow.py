"""MLflow: a study's run and its trials' runs, found again after any crash by their tags."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, LifecycleStage, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from medgan.errors import InputError, JobError
from medgan.terminal import LOG
from medgan.tracking.store import KEY_TAG, PARENT_TAG, ROOT_TAG, STATE_TAG, STUDY_ROOT, STUDY_TAG, every_run, opened

TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's pages show runs and curves, not its pages for language models."""


class MlflowRun:
    """One run; see `medgan.tracking.tracker.Tracker`."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        known = client.get_run(run_id).data
        self.known_params = dict(known.params)
        told = client.get_metric_history(run_id, "epoch") if "epoch" in known.metrics else []
        self.steps = {metric.step for metric in told}

    def params(self, values: Mapping[str, Any]) -> None:
        new = [Param(key, str(value)) for key, value in values.items() if key not in self.known_params]
        self.client.log_batch(self.run_id, params=new)
        self.known_params |= {param.key: param.value for param in new}

    def tags(self, values: Mapping[str, Any]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if step in self.steps:
            return
        now = int(time.time() * 1000)
        counted = {**values, "epoch": step} if step else values
        self.client.log_batch(self.run_id, [Metric(key, value, now, step) for key, value in counted.items()])
        self.steps |= {step} if step else set()

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
        with opened(uri) as self.client:
            self.experiment_id = _experiment(self.client, experiment, location)
        self.study, self.key = study, key
        self.run = self._run(study, root=STUDY_ROOT, parent=None)

    def __enter__(self) -> MlflowStudy:
        return self

    def go_on(self) -> None:
        """Says that the study is going on."""
        self.client.update_run(self.run.run_id, status="RUNNING")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        failed = "KILLED" if kind and issubclass(kind, KeyboardInterrupt) else "FAILED"
        try:
            self.run.finish(failed if kind else "FINISHED")
        except MlflowException:  # how the job ended matters more than that a store is away
            LOG.exception("tracking: the study's run was not closed")
        if isinstance(error, MlflowException):
            reason = str(error).splitlines()[0]
            raise JobError(f"MLflow did not take a result ({reason}); the same command again goes on") from error

    def trial(self, root: int) -> MlflowRun:
        """The run of a trial, made if there is none; going again if it had ended."""
        return self._run(f"{self.study} #{root}", root=str(root), parent=self.run.run_id)

    def close_orphans(self, states: Mapping[int, str]) -> None:
        """Ends the trial runs that a dead driver left going; of trials that are not finished it says interrupted.

        Args:
            states: the status each finished trial should have, by root.
        """
        going = f"tags.`{KEY_TAG}` = '{self.key}' and attributes.status = 'RUNNING'"
        for run in list(every_run(self.client, [self.experiment_id], going)):
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


def _experiment(client: MlflowClient, name: str, location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == LifecycleStage.DELETED:
        raise InputError(
            f"experiment {name} was deleted; mlflow experiments restore --experiment-id {found.experiment_id} "
            "brings it back"
        )
    return found.experiment_id if found else client.create_experiment(name, location, TRAINING)
