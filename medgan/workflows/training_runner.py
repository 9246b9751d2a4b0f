"""Runs a training epoch by epoch, in this process or on a worker group."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import cluster, is_given, refuse_what_cannot_fit, resources_for
from medgan.distributed.fault_tolerance import Attempts
from medgan.distributed.resources import Resources, machine
from medgan.distributed.worker import Start, is_out_of_memory, out_of_memory
from medgan.distributed.worker_group import Group, TrialFailed
from medgan.metrics.validation_metrics import error_text
from medgan.training.autotune import notes
from medgan.training.build_training import build_training
from medgan.training.loop import save_epoch, train_epoch
from medgan.training.runtime import SingleProcess
from medgan.workflows.events import EpochDone, Note, Notify

EPOCH_LIMIT_S = 4 * 3600.0


class Trainee(Protocol):
    """Is a training that goes on epoch by epoch, here or on workers."""

    history: list[dict[str, float]]

    def advance(self) -> None:
        """Adds at least one epoch to the history."""

    def events_so_far(self) -> list[str]:
        """Returns what a person should know, each once."""


class Here:
    """Runs a training in this process."""

    def __init__(self, start: Start) -> None:
        self.config, self.folder = start.config, Path(start.folder)
        dataset = PreparedDataset.open(Path(start.dataset))
        with self._advising_when_out_of_memory():
            self.training = build_training(start.config, dataset, SingleProcess(), folder=self.folder)
        self.history = self.training.state.history
        self.events = [f"continues after epoch {len(self.history)}, from its checkpoint"] if self.history else []
        self.events += notes(self.folder)

    def advance(self) -> None:
        """Trains, validates and saves an epoch."""
        with self._advising_when_out_of_memory():
            train_epoch(self.training)
        save_epoch(self.training, self.folder)

    def events_so_far(self) -> list[str]:
        """Returns where the training continued, once."""
        events, self.events = self.events, []
        return events

    @contextmanager
    def _advising_when_out_of_memory(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise TrialFailed(
                "E-TRAIN-06", out_of_memory=out_of_memory(self.config, SingleProcess()), kind="out_of_memory"
            ) from None


@contextmanager
def trainee(
    start: Start, *, workers: int, threads: int | None = None, output: Path, notify: Notify
) -> Iterator[tuple[Trainee, Resources]]:
    """Yields the training, in this process or on a worker group of its own, and the resources it runs on.

    Args:
        workers: DDP processes; with 1, and no cluster at hand, it is this one.
        threads: CPU threads a process, at most what there is; None: what there is.
    """
    if workers == 1 and not is_given():
        with _at_most(threads) as used:
            yield Here(start), Resources(1, used, "gpu" if machine().gpus else "cpu")
        return
    scratch = output / "ray" / Path(start.folder).name
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        notify(Note("starting Ray ..."))
        capacity = stack.enter_context(cluster())
        resources, _ = resources_for(capacity, workers=workers, concurrent=1)
        refuse_what_cannot_fit(resources, capacity)
        resources = replace(resources, cpus=min(threads or resources.cpus, resources.cpus))
        group = Group(resources, storage=scratch, limit_s=EPOCH_LIMIT_S)
        stack.callback(group.close)
        yield Attempts(group, start), resources


@contextmanager
def _at_most(threads: int | None) -> Iterator[int]:
    """Limits torch to so many threads of this process; yields how many it uses."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads or before, before))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def epoch_done(history: Sequence[Mapping[str, float]], epochs: int, progress: float) -> EpochDone:
    """Returns the event that the last epoch of a history has ended, when `progress` of the training is done."""
    spent_s = sum(row["time/epoch_s"] for row in history)
    row, best = history[-1], max(row["val/ssim"] for row in history)
    left_s = spent_s / progress - spent_s if progress < 1 else 0.0
    return EpochDone(len(history), epochs, row["val/ssim"], error_text(row), row["time/epoch_s"], best, left_s)
