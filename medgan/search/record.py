"""Writes a search down: each trial's settings, origin, metrics and pictures, to the tracking store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medgan.config import flatten
from medgan.engine.checkpoint import PICTURES
from medgan.provenance import Facts, attach, run_facts, tags_from
from medgan.search.study import Study, root_of
from medgan.search.trial import Assignment
from medgan.tasks import Task
from medgan.tracking.pictures import draw_slices
from medgan.tracking.tracker import Background, Tracker

STATUS = {
    "complete": "FINISHED", "pruned": "FINISHED", "infrastructure": "KILLED", "interrupted": "KILLED",
    "budget": "KILLED",
}  # fmt: skip
"""A trial's last state -> MLflow's status; every other state is FAILED."""


class Recorder:
    """Listens to a search and tells each trial's run, in the background.

    A trial's end is told when the next epoch comes in, so that drawing does not slow the hand-over to the next trial.

    Args:
        open_run: root -> the trial's run.
        study: says which attempt at a trial this is.
        task: for the pictures' units.
        tags: facts that every run carries.
        facts: what made these results, see `medgan.provenance.job_facts`; none where others did, earlier.
        told: hears of each trial, by root, whose end the store has taken.
    """

    def __init__(
        self,
        open_run: Callable[[int], Tracker],
        *,
        study: Study,
        task: Task,
        tags: Mapping[str, Any],
        facts: Facts | None,
        told: Callable[[int], None],
    ) -> None:
        self.told = told
        self.untold: set[tuple[int, int]] = set()
        self.open_run, self.study, self.task, self.common, self.facts = open_run, study, task, tags, facts
        self.background = Background()
        self.attempts: dict[int, dict[str, int]] = {}
        self.runs: dict[int, Tracker] = {}
        self.ends: list[tuple[Assignment, str, str]] = []

    def started(self, assignment: Assignment) -> None:
        if any(end[0].root == assignment.root for end in self.ends):
            self._tell_ends()
        self.attempts[assignment.number] = self._attempt(assignment)
        self.background.do(self._run_of, assignment)

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None:
        self._tell_ends()
        if "metrics" not in result:
            return
        goal = assignment.goals[0].metric
        section, _, name = goal.rpartition("/")
        values = {**result["metrics"], f"{section}/best_{name}": result["values"][0]}
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

    def _attempt(self, assignment: Assignment) -> dict[str, int]:
        """The how-manieth attempt at a trial this is, from 1, and which one it repeats."""
        trials = self.study.get_trials(deepcopy=False)[: assignment.number + 1]
        retry_of = trials[-1].user_attrs.get("retry_of")
        number = sum(root_of(trial) == assignment.root for trial in trials)
        return {"attempt": number} | ({"retry_of": retry_of} if retry_of is not None else {})

    def _facts(self, assignment: Assignment) -> Facts:
        resources, seed = assignment.resources, assignment.config.train.seed
        facts = run_facts(
            self.facts or {}, workers=resources.workers, threads=resources.cpus, device=resources.device, seed=seed
        )
        trial = {"number": assignment.number, "root": assignment.root, **self.attempts[assignment.number]}
        return {**facts, "trial": trial}

    def _run_of(self, assignment: Assignment) -> Tracker:
        """The trial's run, opened on first use."""
        number = assignment.number
        if number not in self.runs:
            run, facts = self.open_run(assignment.root), self._facts(assignment) if self.facts is not None else {}
            run.params(flatten(assignment.config))
            attempt = {f"medgan.{name}": value for name, value in self.attempts[number].items()}
            origin = tags_from(facts) if facts else {}
            run.tags({**self.common, **origin, **attempt, "medgan.trial": number, "medgan.state": "running"})
            if facts:
                attach(run.artifact, assignment.config.model_dump(mode="json"), facts)
            self.runs[number] = run
        return self.runs[number]

    def _refuse(self, number: int, reason: str) -> None:
        run = self.open_run(number)
        run.tags({**self.common, "medgan.trial": number, "medgan.state": "input", "medgan.reason": reason})
        run.finish("FAILED")

    def _metrics(self, assignment: Assignment, values: Mapping[str, float], step: int) -> None:
        self.untold.add((assignment.root, step))
        self._run_of(assignment).metrics(values, step)
        self.untold.discard((assignment.root, step))

    def _finish(self, assignment: Assignment, state: str, reason: str) -> None:
        run = self._run_of(assignment)
        arrays = Path(assignment.folder) / PICTURES
        if arrays.exists():
            with tempfile.TemporaryDirectory() as folder:
                picture = Path(folder) / "validation.png"
                title = f"trial {assignment.root}: fixed validation slices"
                draw_slices(arrays, picture, title=title, source=self.task.source, target=self.task.target)
                run.artifact(picture, "pictures")
        run.tags({"medgan.state": state, "medgan.reason": reason or "-"})
        run.finish(STATUS.get(state, "FAILED"))
        if all(root != assignment.root for root, _ in self.untold):
            self.told(assignment.root)
        del self.runs[assignment.number], self.attempts[assignment.number]
