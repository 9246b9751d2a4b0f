"""Runs trial after trial, order by order, on every Ray Train worker of a resident group."""

import ctypes
import errno
import gc
import os
import sys
import textwrap
import threading
import time
import traceback
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
import ray.train.collective
import torch

from medgan.config import Config
from medgan.data.dataset import PreparedDataset
from medgan.distributed.command_channel import STOP, Failure
from medgan.distributed.ray_runtime import RayRuntime
from medgan.errors import Diverged, InputError, JobError
from medgan.paths import keep_private
from medgan.training.build_networks import refuse_misfit
from medgan.training.build_training import build_training
from medgan.training.loop import Training, save_epoch, train_epoch
from medgan.training.memory_advice import that_memory_was_out, what_needs_less
from medgan.training.runtime import Runtime

NO_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "_ALLOC_FAILED")
"""torch's CPU allocator, C++, CUDA and its libraries say one of these in a plain RuntimeError."""


@dataclass(frozen=True)
class Start:
    """Orders the ranks to build this trial, and to continue from its folder's checkpoint if there is one."""

    config: Config
    dataset: str
    folder: str


@dataclass(frozen=True)
class Epoch:
    """Orders the ranks to train one epoch, validate, and write a checkpoint."""


class Worker:
    """Runs one rank's share of the current trial."""

    def __init__(self, runtime: RayRuntime) -> None:
        keep_private()
        self.runtime = runtime
        self.training: Training | None = None
        self.config = Config()
        self.folder = Path()
        self.idle_since: float | None = None
        self.handover_s: float | None = None

    def obey(self, order: Start | Epoch) -> Any:
        """Carries out an order; returns the number of epochs so far, or the epoch's row of metrics, or a `Failure`."""
        try:
            return self._start(order) if isinstance(order, Start) else self._epoch()
        except Diverged as error:
            return Failure("diverged", str(error))
        except InputError as error:
            return Failure("input", str(error))
        except Exception as error:  # the trial fails, the group goes on
            traceback.print_exc()
            traceback.clear_frames(error.__traceback__)
            if is_out_of_memory(error):
                return Failure("out_of_memory", out_of_memory(self.config, self.runtime))
            return Failure("error", textwrap.shorten(f"{type(error).__name__}: {error}", 160))
        finally:
            if isinstance(order, Epoch):
                self.idle_since = time.monotonic()

    def _start(self, order: Start) -> int:
        self.training = None
        release_memory()
        self.config, self.folder = order.config, Path(order.folder)
        refuse_misfit(order.config, slices=order.config.train.batch_size // self.runtime.size)
        dataset = opened(order.dataset)
        self.training = build_training(order.config, dataset, self.runtime, folder=self.folder)
        epoch = self.training.state.epoch
        if self.runtime.mean({"epoch": epoch})["epoch"] != epoch:
            raise JobError("E-GROUP-06", rank=self.runtime.rank, epoch=epoch)
        self.training.on_first_step = self._first_step
        return self.training.state.epoch

    def _epoch(self) -> dict[str, float]:
        assert self.training is not None, "an epoch was ordered before a trial was started"
        row = train_epoch(self.training)
        row["cost/parameters"] = sum(weight.numel() for weight in self.training.state.best_generator.parameters())
        if self.handover_s is not None:
            row["time/handover_s"], self.handover_s = self.handover_s, None
        if self.runtime.rank == 0:
            save_epoch(self.training, self.folder)
        return row

    def _first_step(self) -> None:
        """Records the time from the end of the last trial on this group to the first batch of this one."""
        if self.idle_since is not None and self.training is not None and not self.training.state.history:
            self.handover_s = time.monotonic() - self.idle_since


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether a GPU, the CPU or the process has no memory left; torch has its own error class for GPUs only."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or getattr(error, "errno", None) == errno.ENOMEM
    return known or any(words in str(error) for words in NO_MEMORY)


def out_of_memory(config: Config, runtime: Runtime) -> str:
    """Returns the message of a training that ran out of memory: which settings to lower, and by how much.

    Where too little memory is left to compute that from shapes, the message names batch and network size only.
    """
    device = "gpu" if runtime.device.type == "cuda" else "cpu"
    try:
        return what_needs_less(config, workers=runtime.size, device=device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return f"{that_memory_was_out(config)}; lower train.batch_size, or make the network smaller"


def serve_trials(group: dict[str, Any]) -> None:
    """Carries out the orders on every rank, until it receives `STOP` or the channel is gone.

    Args:
        group: `channel`, the actor's handle; `threads`, the number of CPU threads that this rank may use.
    """
    torch.set_num_threads(group["threads"])
    gc.freeze()  # imported objects stay; a collection between trials then checks the trial's own objects only
    channel, runtime = group["channel"], RayRuntime.current()
    generation = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    try:
        number = ray.get(channel.join.remote(generation, runtime.rank))
        threading.Thread(target=_leave_when_over, args=(channel, generation), daemon=True).start()
        worker = Worker(runtime)
        while True:
            number, order = ray.get(channel.next_order.remote(generation, number))
            if order == STOP:
                return
            ray.get(channel.answer.remote(generation, number, runtime.rank, worker.obey(order)))
    except ray.exceptions.RayActorError:
        return


def _leave_when_over(channel: Any, generation: str) -> None:
    try:
        ray.get(channel.until_over.remote(generation))
    except ray.exceptions.RayActorError:
        time.sleep(5)  # a rank that is not stuck leaves by itself meanwhile
    os._exit(1)


@cache
def opened(folder: str) -> PreparedDataset:
    """Returns the data set, which each process opens once."""
    return PreparedDataset.open(Path(folder))


def release_memory() -> None:
    """Frees the memory of the last trial before the next is built, so that different sizes do not add up."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
