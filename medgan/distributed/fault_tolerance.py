"""Trains on a worker group epoch by epoch, and continues from the checkpoint after the group is lost."""

from pathlib import Path

from medgan.distributed.worker import Epoch, Start
from medgan.distributed.worker_group import Group, GroupLost, TrialFailed
from medgan.training.autotune import notes
from medgan.training.checkpoint import read_history

MAX_RESTARTS = 3


class Attempts:
    """Runs a training and keeps its history; after a restart of the group it goes on from its folder's checkpoint.

    Args:
        group: worker group that trains; the caller closes it.

    Attributes:
        history: a row of metrics for each finished epoch, including those that the folder held before.
    """

    def __init__(self, group: Group, start: Start) -> None:
        self.group, self.start = group, start
        self.history = read_history(Path(start.folder))
        self.restarts, self.begun = 0, False
        self.events = [f"continues after epoch {len(self.history)}, from its checkpoint"] if self.history else []

    def advance(self) -> None:
        """Adds at least one epoch to the history.

        Raises:
            TrialFailed: the training cannot go on, or its group was lost more than three times.
        """
        done = len(self.history)
        while len(self.history) == done:
            try:
                self._begin()
                if len(self.history) == done:
                    self.history.append(self.group.ask(Epoch()))
            except GroupLost as lost:
                self.begun, self.restarts = False, self.restarts + 1
                if self.restarts > MAX_RESTARTS:
                    raise TrialFailed("E-TRIAL-01", restarts=self.restarts, lost=lost, kind="restarts") from lost
                self.events.append(f"{lost} in epoch {done + 1}; the worker group restarts")

    def events_so_far(self) -> list[str]:
        """Returns the events since the last call that a person should know."""
        events, self.events = self.events, []
        return events

    def _begin(self) -> None:
        """Lets the group build the training, unless the group has built it already."""
        if self.begun:
            return
        self.group.wait_ready()
        done = self.group.ask(self.start)
        self.begun = True
        if self.restarts:
            self.events.append(f"continues after epoch {done}, from its checkpoint")
        else:
            self.events += notes(Path(self.start.folder))
        if done > len(self.history):
            self.history = read_history(Path(self.start.folder))
