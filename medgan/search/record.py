"""Writes a search down: metrics and pictures to the tracking store, and only the checkpoints that are still needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medgan.config import flatten
from medgan.engine.checkpoint import BEST, LAST, PICTURES
from medgan.search.study import Study, best_trial, finished, root_of
from medgan.search.trial import Assignment, trial_folder
from medgan.tasks import Task
from medgan.terminal import LOG
from medgan.tracking.pictures import draw_slices
from medgan.tracking.tracker import Background, Tracker

STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "running": "FINISHED", "infrastructure": "KILLED"}
"""A trial's last state -> MLflow's status; every other state is FAILED."""


class Recorder:
    """Listens to a search and tells each trial's run, in the background.

    A trial's end is told when the next epoch comes in, so that drawing does not slow the hand-over to the next trial.

    Args:
        open_run: root -> the trial's run.
        task: for the pictures' units.
        tags: facts that every run carries.
    """

    def __init__(self, open_run: Callable[[int], Tracker], *, task: Task, tags: Mapping[str, str]) -> None:
        self.open_run, self.task, self.common = open_run, task, tags
        self.background = Background()
        self.runs: dict[int, Tracker] = {}
        self.ends: list[tuple[Assignment, str, str]] = []

    def started(self, assignment: Assignment) -> None:
        if any(end[0].root == assignment.root for end in self.ends):
            self._tell_ends()
        self.background.do(self._run_of, assignment)

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self._tell_ends()
        if "metrics" not in result:
            return
        values = {**result["metrics"], "val/best_ssim": result["objective"]}
        self.background.do(self._metrics, assignment, values, result["epoch"])

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self.ends.append((assignment, result["state"], result.get("reason", "")))

    def refused(self, number: int, reason: str) -> None:
        self.background.do(self._refuse, number, reason)

    def finally_do(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queues a call behind everything that was heard."""
        self._tell_ends()
        self.background.do(call, *arguments)

    def close(self, limit_s: float) -> bool:
        """Tells what is left; false when it took longer than `limit_s`, or when anything was not taken."""
        self._tell_ends()
        return self.background.close(limit_s)

    def _tell_ends(self) -> None:
        for end in self.ends:
            self.background.do(self._finish, *end)
        self.ends = []

    def _run_of(self, assignment: Assignment) -> Tracker:
        """The trial's run, opened on first use."""
        if assignment.number not in self.runs:
            run = self.open_run(assignment.root)
            run.params(flatten(assignment.config))
            run.tags({**self.common, "medgan.trial": assignment.number, "medgan.state": "running"})
            self.runs[assignment.number] = run
        return self.runs[assignment.number]

    def _refuse(self, number: int, reason: str) -> None:
        run = self.open_run(number)
        run.tags({**self.common, "medgan.trial": number, "medgan.state": "input", "medgan.reason": reason})
        run.finish("FAILED")

    def _metrics(self, assignment: Assignment, values: Mapping[str, float], step: int) -> None:
        self._run_of(assignment).metrics(values, step)

    def _finish(self, assignment: Assignment, state: str, reason: str) -> None:
        run = self._run_of(assignment)
        arrays = Path(assignment.folder) / PICTURES
        if arrays.exists():
            with tempfile.TemporaryDirectory() as folder:
                picture = Path(folder) / "validation.png"
                title = f"trial {assignment.root}: fixed validation slices"
                draw_slices(arrays, picture, title=title, source=self.task.source, target=self.task.target)
                run.artifact(picture, "pictures")
        run.tags({"medgan.state": "pruned" if state == "running" else state, "medgan.reason": reason or "-"})
        run.finish(STATUS.get(state, "FAILED"))


class Retention:
    """Listens to a search and deletes what no one needs any more: of finished trials the best keeps its generator.

    Args:
        study: says which trials are finished, and which is best.
        checkpoints: the study's folder.
    """

    def __init__(self, study: Study, checkpoints: Path) -> None:
        self.study, self.checkpoints = study, checkpoints

    def started(self, assignment: Assignment) -> None: ...

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None: ...

    def refused(self, number: int, reason: str) -> None: ...

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        best = best_trial(self.study)
        kept = root_of(best[0]) if best else None
        for root in {root_of(trial) for trial in finished(self.study)}:
            folder = trial_folder(self.checkpoints, root)
            for name in (LAST,) if root == kept else (LAST, BEST):
                try:
                    (folder / name).unlink(missing_ok=True)
                except OSError as error:  # storage that is away must not end a search
                    LOG.warning("trial %d: %s not deleted: %s", root, name, error)
