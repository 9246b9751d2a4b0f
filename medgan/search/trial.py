"""A trial as Ray Tune runs it: a reusable actor that keeps its worker group and hands it trial after trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from medgan.config import Config
from medgan.distributed.fault_tolerance import Attempts
from medgan.distributed.worker import Start
from medgan.distributed.worker_group import Group, Resources, TrialFailed
from medgan.search.objectives import Goal
from medgan.training.build_training import length_of
from medgan.training.loop import best_epoch

EPOCH_LIMIT_S = 4 * 3600.0


@dataclass(frozen=True)
class Assignment:
    """What a trial is: its place in the study, its configuration, and where it reads and writes."""

    number: int
    first_attempt: int
    config: Config
    goals: tuple[Goal, ...]
    dataset: str
    folder: str
    resources: Resources
    storage: str
    method: str = ""
    """Which published method it is, or method of the space's own."""

    @property
    def label(self) -> str:
        """For a person."""
        named = f", {self.method} seed {self.config.train.seed}" if self.method else ""
        return f"trial {self.first_attempt}{named}"


def trial_folder(checkpoints: Path, first_attempt: int) -> Path:
    """Where a trial's checkpoints and pictures lie."""
    return checkpoints / f"{first_attempt:04d}"


class TuneTrial(tune.Trainable):
    """One step is one epoch; epochs that the trial's folder already holds are replayed, not trained again."""

    def setup(self, config: dict[str, Any]) -> None:
        """A new actor: starts its worker group."""
        assignment = config["assignment"]
        self.group = Group(assignment.resources, storage=Path(assignment.storage), limit_s=EPOCH_LIMIT_S)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial on the same group."""
        assignment: Assignment = new_config["assignment"]
        self.attempts = Attempts(self.group, Start(assignment.config, assignment.dataset, assignment.folder))
        self.goals, self.devices = assignment.goals, assignment.resources.devices
        self.length, self.epoch = length_of(assignment.config), 0
        return True

    def step(self) -> dict[str, Any]:
        """One epoch's metrics; a trial that failed by its own fault ends with the reason, its actor lives on."""
        try:
            if self.epoch == len(self.attempts.history):
                self.attempts.advance()
        except TrialFailed as failure:
            return self._result(failure.kind, str(failure))
        measured = {"cost/gpu_hours", *self.attempts.history[self.epoch]}
        if missing := [goal.metric for goal in self.goals if goal.metric not in measured]:
            return self._result("input", f"measured on no validation slice, and yet an objective: {', '.join(missing)}")
        self.epoch += 1
        progress = self.length.progress(self.attempts.history[: self.epoch])
        return self._result("complete" if progress >= 1 else "running")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the workers write to the trial's own folder after every epoch."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """The actor ends: its group too."""
        self.group.close()

    def _result(self, state: str, reason: str = "") -> dict[str, Any]:
        events = self.attempts.events_so_far()
        result = {"state": state, "reason": reason, "epoch": self.epoch, "events": events, "done": state != "running"}
        return result | so_far(self.attempts.history[: self.epoch], self.goals, self.devices)


def so_far(history: Sequence[Mapping[str, float]], goals: Sequence[Goal], devices: int) -> dict[str, Any]:
    """What a trial's epochs tell a search; nothing before the first.

    Returns:
        Of the best epoch so far: `objective`, higher is better; `values` of the goals; `best`, all its metrics, as
        pairs, since Tune takes dictionaries apart before the searcher sees them. Of the last epoch: `metrics`, and
        `now`, the goals' values. Of all epochs: `trained_s`, seconds.
    """
    if not history:
        return {}
    rows, trained_s = [], 0.0
    for row in history:
        trained_s += row["time/epoch_s"]
        rows.append({**row, "cost/gpu_hours": devices * trained_s / 3600})
    best = rows[best_epoch(rows, goals[0].metric)]
    return {
        "objective": goals[0].score(best),
        "values": [best[goal.metric] for goal in goals],
        "best": [*best.items()],
        "metrics": rows[-1],
        "now": [rows[-1][goal.metric] for goal in goals],
        "trained_s": trained_s,
    }
