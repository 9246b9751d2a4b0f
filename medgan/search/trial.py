"""Runs trials in Ray Tune: a reusable actor keeps its worker group and gives it one trial after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from medgan.config import Config
from medgan.distributed.fault_tolerance import Attempts
from medgan.distributed.resources import Resources
from medgan.distributed.worker import Start
from medgan.distributed.worker_group import Group, TrialFailed
from medgan.paths import keep_private
from medgan.search.objectives import Goal
from medgan.training.build_training import length_of
from medgan.training.loop import best_epoch

EPOCH_LIMIT_S = 4 * 3600.0
SHARE = "share/generator/"


@dataclass(frozen=True)
class Assignment:
    """Describes a trial: its place in the study, its configuration, and where it reads and writes."""

    number: int
    first_attempt: int
    config: Config
    goals: tuple[Goal, ...]
    dataset: str
    folder: str
    resources: Resources
    storage: str
    method: str = ""
    """The published method of the trial, or a method that the space defines; "" if the space does not vary it."""

    @property
    def label(self) -> str:
        """Returns the name of the trial for the user."""
        named = f", {self.method} seed {self.config.train.seed}" if self.method else ""
        return f"trial {self.first_attempt}{named}"


def trial_folder(checkpoints: Path, first_attempt: int) -> Path:
    """Returns the folder of a trial's checkpoints and pictures."""
    return checkpoints / f"{first_attempt:04d}"


class TuneTrial(tune.Trainable):
    """Trains one epoch a step; epochs that the trial's folder already holds are replayed, not trained again."""

    def setup(self, config: dict[str, Any]) -> None:
        """Starts the worker group of a new actor."""
        keep_private()
        assignment = config["assignment"]
        self.group = Group(assignment.resources, storage=Path(assignment.storage), limit_s=EPOCH_LIMIT_S)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Sets up the next trial on the same worker group."""
        assignment: Assignment = new_config["assignment"]
        self.attempts = Attempts(self.group, Start(assignment.config, assignment.dataset, assignment.folder))
        self.goals, self.devices = assignment.goals, assignment.resources.devices
        self.length, self.epoch = length_of(assignment.config), 0
        return True

    def step(self) -> dict[str, Any]:
        """Returns the metrics of one epoch; a trial that fails by itself ends with the reason, and its actor stays."""
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
        """Saves nothing: the workers write to the trial's folder after every epoch."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Loads nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """Ends the worker group with its actor."""
        self.group.close()

    def _result(self, state: str, reason: str = "") -> dict[str, Any]:
        events = self.attempts.events_so_far()
        result = {"state": state, "reason": reason, "epoch": self.epoch, "events": events, "done": state != "running"}
        return result | so_far(self.attempts.history[: self.epoch], self.goals, self.devices)


def so_far(history: Sequence[Mapping[str, float]], goals: Sequence[Goal], devices: int) -> dict[str, Any]:
    """Summarizes the epochs of a trial for the search; returns an empty dictionary before the first epoch.

    Returns:
        For the best epoch so far: `objective`, higher is better; `values` of the goals; `best`, all its metrics as
        pairs, since Tune flattens dictionaries before the searcher receives them. For the last epoch: `metrics`; `now`,
        the values of the goals; and `shares`, pairs of a term and its share of the gradient. For all epochs:
        `trained_s`, seconds.
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
        "shares": [(name.removeprefix(SHARE), share) for name, share in rows[-1].items() if name.startswith(SHARE)],
        "trained_s": trained_s,
    }
