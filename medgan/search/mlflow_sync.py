"""Records a search in MLflow: settings, origin, metrics and pictures of each trial."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.config import flatten
from medgan.data.atomic_write import write_atomically
from medgan.provenance import PROVENANCE_FILE, Facts, attach, run_facts, tags_from
from medgan.search.study import Study, first_attempt_of
from medgan.search.trial import Assignment
from medgan.tasks import Task
from medgan.tracking.mlflow_runs import now_ms
from medgan.tracking.slice_pictures import draw_slices
from medgan.tracking.system_metrics import Machine
from medgan.tracking.tracker import Background, Tracker
from medgan.training.autotune import tags_of_speed
from medgan.training.checkpoint import PICTURES
from medgan.training.frozen_features import feature_facts

STATUS = {
    "complete": "FINISHED", "pruned": "FINISHED", "infrastructure": "KILLED", "interrupted": "KILLED",
    "budget": "KILLED",
}  # fmt: skip
"""Maps the last state of a trial to the status in MLflow; every other state becomes FAILED."""


@dataclass(frozen=True)
class Attempt:
    """Holds the facts of an attempt at a trial that are known when it begins.

    Attributes:
        facts: number of the attempt within its trial, from 1, and number of the attempt that it repeats.
        moved: sampled settings that are numbers.
        origin: provenance of the results; empty: not known.
        began_ms: start, in milliseconds since 1970.
    """

    facts: Mapping[str, int]
    moved: Mapping[str, float]
    origin: Facts
    began_ms: int


OpenRun = Callable[[int, Mapping[str, Any], int], Tracker]
"""Maps the first attempt, the tags and the start of a trial (milliseconds since 1970) to its run."""


class Recorder:
    """Listens to a search and records each trial in MLflow, in the background, with the time of each event.

    The end of a trial is recorded when the next epoch arrives, so that drawing does not delay the next trial. If this
    process dies before MLflow has recorded everything, the next process records the rest from the trials' folders and
    the study: the last state of a trial is deleted only after MLflow has recorded its end.

    Args:
        task: gives the units of the pictures.
        facts: provenance of the results, see `medgan.provenance.job_facts`; None: an earlier process made them.
        recorded: called with the first attempt of each trial whose end MLflow has recorded.
        say: tells the user that MLflow does not answer, or answers again.
    """

    def __init__(
        self,
        open_run: OpenRun,
        *,
        study: Study,
        task: Task,
        facts: Facts | None,
        recorded: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self.open_run, self.study, self.task, self.facts, self.recorded = open_run, study, task, facts, recorded
        self.unrecorded: set[tuple[int, int]] = set()
        self.background, self.machine = Background(say), Machine()
        self.attempts: dict[int, Attempt] = {}
        self.runs: dict[int, Tracker] = {}
        self.ends: list[tuple[Assignment, str, str, int]] = []

    def started(self, assignment: Assignment) -> None:
        if any(end[0].first_attempt == assignment.first_attempt for end in self.ends):
            self._record_ends()
        self.attempts[assignment.number] = self._attempt(assignment)
        self.background.do(self._run_of, assignment)

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self._record_ends()
        if "metrics" not in result:
            return
        values = {**result["metrics"], best_of(assignment.goals[0].metric): result["values"][0]}
        if self.facts is not None:  # otherwise an earlier process trained, maybe elsewhere
            values |= self.machine.now()
            self.background.do(self.machine.add_gpus, values, time.monotonic())
        self.background.do(self._metrics, assignment, values, result["epoch"], now_ms())

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self.ends.append((assignment, result["state"], result.get("reason", ""), now_ms()))

    def refused(self, number: int, reason: str) -> None:
        self.background.do(self._refuse, number, reason, now_ms())

    def finally_do(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queues a call behind everything recorded so far."""
        self._record_ends()
        self.background.do(call, *arguments)

    def close(self, limit_s: float) -> bool:
        """Records the rest; returns False if that took longer than `limit_s`, or if any upload failed."""
        self._record_ends()
        return self.background.close(limit_s)

    def _record_ends(self) -> None:
        for end in self.ends:
            self.background.do(self._finish, *end)
        self.ends = []

    def _attempt(self, assignment: Assignment) -> Attempt:
        trials = self.study.get_trials(deepcopy=False)[: assignment.number + 1]
        retry_of = trials[-1].user_attrs.get("retry_of")
        number = sum(first_attempt_of(trial) == assignment.first_attempt for trial in trials)
        facts = {"attempt": number} | ({"retry_of": retry_of} if retry_of is not None else {})
        moved = {name: value for name, value in trials[-1].params.items() if _is_number(value)}
        return Attempt(facts, moved, self._origin(assignment, facts), now_ms())

    def _origin(self, assignment: Assignment, attempt: Mapping[str, int]) -> Facts:
        """Returns the provenance of a trial, and stores it in its folder; reads it if an earlier process trained."""
        kept = Path(assignment.folder) / PROVENANCE_FILE
        if self.facts is None:
            return json.loads(kept.read_text()) if kept.exists() else {}
        resources, config = assignment.resources, assignment.config
        facts = run_facts(
            self.facts,
            workers=resources.workers,
            threads=resources.cpus,
            device=resources.device,
            seed=config.train.seed,
            features=feature_facts(config),
        )
        facts["trial"] = {"number": assignment.number, "root": assignment.first_attempt, **attempt}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(facts).encode())
        return facts

    def _run_of(self, assignment: Assignment) -> Tracker:
        """Returns the run of a trial, and opens it on first use."""
        number = assignment.number
        if number not in self.runs:
            attempt = self.attempts[number]
            origin = tags_from(attempt.origin) if attempt.origin else {}
            numbered = {f"medgan.{name}": value for name, value in attempt.facts.items()}
            method = {"medgan.preset": assignment.method} if assignment.method else {}
            tags = {**origin, **numbered, **method, "medgan.trial": number, "medgan.state": "running"}
            run = self.open_run(assignment.first_attempt, tags, attempt.began_ms)
            run.params(flatten(assignment.config), attempt.moved)
            if attempt.origin:
                attach(run.artifact, assignment.config.model_dump(mode="json"), attempt.origin)
            self.runs[number] = run
        return self.runs[number]

    def _refuse(self, number: int, reason: str, heard_ms: int) -> None:
        tags = {"medgan.trial": number, "medgan.state": "input", "medgan.reason": reason}
        self.open_run(number, tags, heard_ms).finish("FAILED", heard_ms)

    def _metrics(self, assignment: Assignment, values: Mapping[str, float], step: int, heard_ms: int) -> None:
        self.unrecorded.add((assignment.first_attempt, step))
        self._run_of(assignment).metrics(values, step, heard_ms)
        self.unrecorded.discard((assignment.first_attempt, step))

    def _finish(self, assignment: Assignment, state: str, reason: str, heard_ms: int) -> None:
        run = self._run_of(assignment)
        speed = tags_of_speed(Path(assignment.folder))
        run.tags({"medgan.state": state, "medgan.reason": reason or "-", **speed})
        arrays = Path(assignment.folder) / PICTURES
        if arrays.exists():
            with tempfile.TemporaryDirectory() as folder:
                picture = Path(folder) / "validation.png"
                title = f"trial {assignment.first_attempt}: fixed validation slices"
                draw_slices(arrays, picture, title=title, source=self.task.source, target=self.task.target)
                run.artifact(picture, "pictures")
        run.finish(STATUS.get(state, "FAILED"), heard_ms)
        if all(first_attempt != assignment.first_attempt for first_attempt, _ in self.unrecorded):
            self.recorded(assignment.first_attempt)
        del self.runs[assignment.number], self.attempts[assignment.number]


def best_of(metric: str) -> str:
    """Returns the name of a metric's value in the best epoch so far: `val/ssim` -> `val/best_ssim`."""
    section, _, name = metric.rpartition("/")
    return f"{section}/best_{name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
