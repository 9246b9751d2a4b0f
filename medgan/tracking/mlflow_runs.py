"""Writes a study's run and its trials' runs to MLflow; after a crash it finds them again by their tags."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, urlencode

from mlflow import MlflowClient
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, LifecycleStage, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from medgan.errors import InputError, JobError
from medgan.tracking.store import KEY_TAG, PARENT_TAG, ROOT_TAG, STATE_TAG, STUDY_ROOT, STUDY_TAG, every_run, opened
from medgan.tracking.tracker import Background

TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""The tag makes MLflow show its pages for runs and curves, not those for language models."""
CLOSING_S = 8.0
"""The end of a study waits at most this many seconds until its run is closed."""


class MlflowRun:
    """Records one run, see `medgan.tracking.tracker.Tracker`; what is recorded already is not recorded again.

    Attributes:
        ended_ms: end of the run before it was opened again, milliseconds since 1970.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.client, self.run_id, self.started_ms = client, str(run.info.run_id), int(run.info.start_time)
        self.artifact_uri, self.ended_ms = run.info.artifact_uri, run.info.end_time
        self.known_params = dict(run.data.params)
        recorded = client.get_metric_history(self.run_id, "epoch") if "epoch" in run.data.metrics else []
        self.steps = {metric.step for metric in recorded}

    def params(self, values: Mapping[str, Any], moved: Mapping[str, float] | None = None) -> None:
        new = [Param(key, str(value)) for key, value in values.items() if key not in self.known_params]
        numbers = [Metric(f"moved/{key}", value, self.started_ms, 0) for key, value in (moved or {}).items()]
        if new:
            self.client.log_batch(self.run_id, numbers, new)
        self.known_params |= {param.key: param.value for param in new}

    def tags(self, values: Mapping[str, Any]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int, heard_ms: int | None = None) -> None:
        if step in self.steps:
            return
        moment = heard_ms or now_ms()
        counted = {**values, "epoch": step} if step else values
        self.client.log_batch(self.run_id, [Metric(key, value, moment, step) for key, value in counted.items()])
        self.steps |= {step} if step else set()

    def artifact(self, path: Path, folder: str = "") -> None:
        repository = get_artifact_repository(self.artifact_uri, tracking_uri=self.client.tracking_uri)
        repository.log_artifact(str(path), folder or None)

    def finish(self, status: str, heard_ms: int | None = None) -> None:
        self.client.set_terminated(self.run_id, status, heard_ms)


def now_ms() -> int:
    """Returns the time in milliseconds since 1970."""
    return int(time.time() * 1000)


class MlflowStudy:
    """Opens or makes the runs of one study.

    Args:
        experiment: name of the experiment, `medgan/<task>`.
        artifacts: folder for the artifacts of a new experiment where no server keeps them.
        study: name of the study and of its run.
        key: distinguishes the study from others with the same name.

    Raises:
        InputError: the store cannot be reached.
    """

    def __init__(self, uri: str, experiment: str, *, artifacts: Path, study: str, key: str) -> None:
        location = None if uri.startswith("http") else (artifacts / experiment).as_uri()
        with opened(uri) as self.client:
            self.experiment_id = _experiment(self.client, experiment, location)
        self.study, self.key, self.parent = study, key, ""
        self.made: set[str] = set()
        self.run = self._run(STUDY_ROOT, study)
        self.parent, self.is_new = self.run.run_id, STUDY_ROOT in self.made
        self.given_up = False

    def __enter__(self) -> Self:
        return self

    def go_on(self) -> None:
        """Marks the study's run as running."""
        self.client.update_run(self.run.run_id, status="RUNNING")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        failed = "KILLED" if kind and issubclass(kind, KeyboardInterrupt) else "FAILED"
        if not self.given_up:  # an outage of the store must not hide how the job ended
            closing = Background()
            closing.do(self.run.finish, failed if kind else "FINISHED")
            closing.close(CLOSING_S)
        if isinstance(error, MlflowException):
            reason = str(error).splitlines()[0]
            raise JobError("E-MLFLOW-01", reason=reason) from error

    def give_up(self) -> None:
        """Stops waiting for the store: the study's run stays as it is, and the next driver closes it."""
        self.given_up = True

    def answer(self) -> None:
        """Sends a small request to the store; raises MlflowException where the store is away."""
        self.client.get_experiment(self.experiment_id)

    def trial(
        self, first_attempt: int, tags: Mapping[str, Any] | None = None, started_ms: int | None = None
    ) -> MlflowRun:
        """Returns the run of a trial: makes it if there is none, and marks it as running if it had ended.

        Args:
            started_ms: start of a new run, milliseconds since 1970; None: now.
        """
        return self._run(str(first_attempt), name_of(self.study, first_attempt), tags or {}, started_ms)

    def close_orphans(self, states: Mapping[int, str]) -> None:
        """Ends the trial runs that a dead driver left running; marks those of unfinished trials as interrupted.

        Args:
            states: status that each finished trial should have, by first attempt.
        """
        running = f"tags.`{KEY_TAG}` = '{self.key}' and attributes.status = 'RUNNING'"
        for run in list(every_run(self.client, [self.experiment_id], running)):
            first_attempt = run.data.tags.get(ROOT_TAG, "")
            if not first_attempt.isdigit():
                continue
            if int(first_attempt) not in states:
                self.client.set_tag(run.info.run_id, STATE_TAG, "interrupted")
            self.client.set_terminated(run.info.run_id, states.get(int(first_attempt), "KILLED"))

    def link(self, text: str, first_attempt: int | None = None, file: str = "") -> str:
        """Returns Markdown for MLflow's pages: a link to the study's run, to a trial's if it exists, or to its file."""
        found = self._found(str(first_attempt)) if first_attempt is not None else None
        run_id = found.info.run_id if found else self.run.run_id
        return f"[{text}](#/experiments/{self.experiment_id}/runs/{run_id}{f'/artifacts/{file}' if file else ''})"

    def link_to_trials(self, text: str, metric: str, *, ascending: bool) -> str:
        """Returns Markdown for MLflow's pages: a link to the runs of the study's trials, sorted by a metric."""
        runs = f"tags.`{KEY_TAG}` = '{self.key}' and tags.`{ROOT_TAG}` != '{STUDY_ROOT}'"
        order = {"orderByKey": f"metrics.`{metric}`", "orderByAsc": str(ascending).lower()}
        query = urlencode({"searchFilter": runs, **order}, quote_via=quote)
        return f"[{text}](#/experiments/{self.experiment_id}/runs?{query})"

    def dataset(self, name: str, digest: str, *, profile: str) -> None:
        """Records the data set of the study by its digest, never pixels or identifiers."""
        entity = LoggedDataset(name=name, digest=digest[:36], source_type="medgan", source=digest, profile=profile)
        self.client.log_inputs(self.run.run_id, [DatasetInput(entity, [])])

    def _run(
        self,
        first_attempt: str,
        name: str,
        facts: Mapping[str, Any] = MappingProxyType({}),
        started_ms: int | None = None,
    ) -> MlflowRun:
        tags = {key: str(value) for key, value in facts.items()}
        if found := self._found(first_attempt):
            self.client.update_run(found.info.run_id, status="RUNNING")
            opened_again = MlflowRun(self.client, found)
            opened_again.tags(tags)
            return opened_again
        own = {STUDY_TAG: self.study, KEY_TAG: self.key, ROOT_TAG: first_attempt}
        below = {PARENT_TAG: self.parent} if self.parent else {}
        self.made.add(first_attempt)  # before the call: the run may exist although the answer is lost
        run = self.client.create_run(self.experiment_id, started_ms, {**own, **below, **tags}, name)
        return MlflowRun(self.client, run)

    def _found(self, first_attempt: str) -> Run | None:
        """Returns the existing run; where this process began the study, only the runs that it made can exist."""
        if self.parent and self.is_new and first_attempt not in self.made:
            return None
        query = f"tags.`{KEY_TAG}` = '{self.key}' and tags.`{ROOT_TAG}` = '{first_attempt}'"
        found = self.client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1)
        return found[0] if found else None


def name_of(study: str, first_attempt: int) -> str:
    """Returns the name of a trial's run; the number comes first because legends show little more."""
    return f"#{first_attempt} {study}"


def _experiment(client: MlflowClient, name: str, location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == LifecycleStage.DELETED:
        raise InputError("E-MLFLOW-02", name=name, experiment_id=found.experiment_id)
    return found.experiment_id if found else client.create_experiment(name, location, TRAINING)
