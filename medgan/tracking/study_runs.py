"""Reads and corrects the runs that a study has in MLflow, and makes no store where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run

from medgan.errors import InputError
from medgan.paths import redacted
from medgan.tracking.mlflow_runs import MlflowRun, name_of, now_ms
from medgan.tracking.store import KEY_TAG, PARENT_TAG, ROOT_TAG, STATE_TAG, STUDY_TAG, every_run, opened


@dataclass(frozen=True)
class RunFacts:
    """Holds what the store says about one run.

    Attributes:
        first_attempt: number of its trial's first attempt; `STUDY_ROOT`: the study's own run.
        parent: id of the run that it is displayed below; "": none.
        status: RUNNING, FINISHED, FAILED or KILLED.
        state: how its trial ended, as recorded; "": nothing is recorded.
        epochs: epochs whose metrics the run holds.
    """

    run_id: str
    first_attempt: str
    parent: str
    status: str
    state: str
    epochs: frozenset[int]


class StudyRuns:
    """Reads and changes the runs that a study has in any experiment; opening them makes nothing.

    Args:
        key: distinguishes the study from others with the same name.

    Raises:
        InputError: the store does not exist, or cannot be reached.
    """

    def __init__(self, uri: str, *, study: str, key: str) -> None:
        self.study, self.key = study, key
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            raise InputError("E-MLFLOW-07", uri=redacted(uri))
        with opened(uri) as self.client:
            ours = self.client.search_experiments(filter_string="name LIKE 'medgan/%'")
            self.experiment_ids = [experiment.experiment_id for experiment in ours]

    def found(self) -> list[RunFacts]:
        """Returns every run that was not deleted, the oldest first."""
        if not self.experiment_ids:
            return []
        runs = every_run(self.client, self.experiment_ids, f"tags.`{KEY_TAG}` = '{self.key}'")
        return [self._facts(run) for run in sorted(runs, key=lambda run: run.info.start_time)]

    def delete(self, run_id: str) -> None:
        """Marks a run as deleted, as MLflow does; `mlflow gc` removes it for good."""
        self.client.delete_run(run_id)

    def merge(self, run_id: str, into: str) -> None:
        """Deletes a run that duplicates another, and moves the runs below it below the other."""
        query = f"tags.`{PARENT_TAG}` = '{run_id}'"
        for child in list(every_run(self.client, self.experiment_ids, query)):
            self.client.set_tag(child.info.run_id, PARENT_TAG, into)
        self.delete(run_id)

    def end(self, run_id: str, status: str, state: str = "", *, end_ms: int | None = None) -> None:
        """Records how a run ended, and when it ended unless the store knows that.

        Args:
            status: FINISHED, FAILED or KILLED.
            state: how its trial ended; "": leaves the recorded state.
            end_ms: end of the run, milliseconds since 1970; None: now.
        """
        if state:
            self.client.set_tag(run_id, STATE_TAG, state)
        self.client.set_terminated(run_id, status, self.client.get_run(run_id).info.end_time or end_ms)

    def add(
        self,
        first_attempt: int,
        *,
        beside: str,
        tags: Mapping[str, Any],
        params: Mapping[str, Any],
        start_ms: int | None,
    ) -> str:
        """Makes the run of a trial below the study's run, and returns its id.

        Args:
            beside: id of the study's run.
            start_ms: start of the trial, milliseconds since 1970; None: now.
        """
        own = {STUDY_TAG: self.study, KEY_TAG: self.key, ROOT_TAG: first_attempt, PARENT_TAG: beside}
        experiment = self.client.get_run(beside).info.experiment_id
        every = {key: str(value) for key, value in {**own, **tags}.items()}
        run = self.client.create_run(experiment, start_ms, every, name_of(self.study, first_attempt))
        MlflowRun(self.client, run).params(params)
        return str(run.info.run_id)

    def add_epochs(self, run_id: str, epochs: Mapping[int, Mapping[str, float]]) -> None:
        """Adds the metrics of epochs that a run lacks."""
        now = now_ms()
        for step, values in sorted(epochs.items()):
            counted = {**values, "epoch": step}
            self.client.log_batch(run_id, [Metric(key, value, now, step) for key, value in counted.items()])

    def _facts(self, run: Run) -> RunFacts:
        history = self.client.get_metric_history(run.info.run_id, "epoch") if "epoch" in run.data.metrics else []
        return RunFacts(
            run_id=run.info.run_id,
            first_attempt=run.data.tags.get(ROOT_TAG, ""),
            parent=run.data.tags.get(PARENT_TAG, ""),
            status=run.info.status,
            state=run.data.tags.get(STATE_TAG, ""),
            epochs=frozenset(metric.step for metric in history),
        )
