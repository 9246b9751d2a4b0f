"""Writes a search down: metrics and pictures to the tracking store, and only the checkpoints that are still needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medgan.config import flatten
from medgan.engine.checkpoint import BEST, LAST, PICTURES
from medgan.search.trial import Assignment
from medgan.tasks import Task
from medgan.tracking.pictures import draw_slices
from medgan.tracking.tracker import Background, Tracker

STATUS = {"complete": "FINISHED", "running": "FINISHED", "infrastructure": "KILLED"}
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
        self.background.do(self._open, assignment)

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self._tell_ends()
        if "metrics" not in result:
            return
        values = {**result["metrics"], "val/best_ssim": result["objective"]}
        self.background.do(self._metrics, assignment.root, values, result["epoch"])

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self.ends.append((assignment, result["state"], result.get("reason", "")))

    def close(self, limit_s: float) -> bool:
        """Tells what is left; false when it took longer than `limit_s`."""
        self._tell_ends()
        return self.background.close(limit_s)

    def _tell_ends(self) -> None:
        for end in self.ends:
            self.background.do(self._finish, *end)
        self.ends = []

    def _open(self, assignment: Assignment) -> None:
        run = self.runs[assignment.root] = self.open_run(assignment.root)
        run.params(flatten(assignment.config))
        attempt = {"medgan.trial": assignment.number, "medgan.state": "running"}
        run.tags({**self.common, **attempt})

    def _metrics(self, root: int, values: Mapping[str, float], step: int) -> None:
        self.runs[root].metrics(values, step)

    def _finish(self, assignment: Assignment, state: str, reason: str) -> None:
        run = self.runs[assignment.root]
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
    """Listens to a search and deletes what no one needs any more: only the best trial keeps its generator.

    Args:
        best: the value and folder of the study's best trial so far, none at first.
    """

    def __init__(self, best: tuple[float, Path] | None) -> None:
        self.best = best

    def started(self, assignment: Assignment) -> None: ...

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None: ...

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        if result["state"] == "infrastructure":
            return
        folder = Path(assignment.folder)
        (folder / LAST).unlink(missing_ok=True)
        value = result.get("objective", float("-inf")) if result["state"] in ("complete", "running") else float("-inf")
        if self.best is None or value > self.best[0]:
            worse, self.best = self.best[1] if self.best else None, (value, folder)
        else:
            worse = folder
        if worse is not None:
            (worse / BEST).unlink(missing_ok=True)
