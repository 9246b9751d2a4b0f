"""A trial as Ray Tune runs it: a reusable actor that keeps its worker group and hands it trial after trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from medgan.config import Config
from medgan.distributed.resident import Group, GroupLost, Resources, TrialFailed
from medgan.distributed.worker import Epoch, Start
from medgan.engine.checkpoint import read_history
from medgan.engine.loop import OBJECTIVE

MAX_RESTARTS = 3
EPOCH_LIMIT_S = 4 * 3600.0


@dataclass(frozen=True)
class Assignment:
    """What a trial is: its place in the study, its configuration, and where it reads and writes."""

    number: int
    root: int
    config: Config
    dataset: str
    folder: str
    resources: Resources
    storage: str


def trial_folder(checkpoints: Path, root: int) -> Path:
    """Where a trial's checkpoints and pictures lie."""
    return checkpoints / f"{root:04d}"


class TuneTrial(tune.Trainable):
    """One step is one epoch; epochs that the trial's folder already holds are replayed, not trained again."""

    def setup(self, config: dict[str, Any]) -> None:
        """A new actor: starts its worker group."""
        assignment = config["assignment"]
        self.group = Group(assignment.resources, storage=Path(assignment.storage), limit_s=EPOCH_LIMIT_S)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial on the same group."""
        self.assignment: Assignment = new_config["assignment"]
        self.history = read_history(Path(self.assignment.folder))
        self.epoch, self.restarts, self.begun = 0, 0, False
        self.events = [f"continues after epoch {len(self.history)}, from its checkpoint"] if self.history else []
        return True

    def step(self) -> dict[str, Any]:
        """One epoch's metrics; a trial that failed by its own fault ends with the reason, its actor lives on."""
        try:
            if self.epoch == len(self.history):
                self._train_epoch()
        except TrialFailed as failure:
            return self._result(failure.kind, str(failure))
        self.epoch += 1
        return self._result("complete" if self.epoch >= self.assignment.config.train.epochs else "running")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the workers write to the trial's own folder after every epoch."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """The actor ends: its group too."""
        self.group.close()

    def _train_epoch(self) -> None:
        """Adds the next epoch's row to the history, however often the group is lost on the way."""
        while self.epoch == len(self.history):
            try:
                self._begin()
                if self.epoch == len(self.history):
                    self.history.append(self.group.ask(Epoch()))
            except GroupLost as lost:
                self.begun, self.restarts = False, self.restarts + 1
                if self.restarts > MAX_RESTARTS:
                    raise TrialFailed("restarts", f"the worker group was lost {self.restarts} times: {lost}") from lost
                self.events.append(f"{lost} in epoch {self.epoch + 1}; the worker group restarts")

    def _begin(self) -> None:
        """Has the group build the trial, unless it has it already; after a restart it goes on from the checkpoint."""
        if self.begun:
            return
        self.group.wait_ready()
        done = self.group.ask(Start(self.assignment.config, self.assignment.dataset, self.assignment.folder))
        self.begun = True
        if self.restarts:
            self.events.append(f"goes on after epoch {done}, from its checkpoint")
        if done > self.epoch:
            self.history = read_history(Path(self.assignment.folder))

    def _result(self, state: str, reason: str = "") -> dict[str, Any]:
        events, self.events = self.events, []
        result = {"state": state, "reason": reason, "epoch": self.epoch, "events": events, "done": state != "running"}
        seen = self.history[: self.epoch]
        if seen:
            result |= {"objective": max(row[OBJECTIVE] for row in seen), "metrics": seen[-1]}
        return result
