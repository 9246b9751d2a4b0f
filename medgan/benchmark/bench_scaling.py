"""Compares two DDP processes with one thread each to one process with two threads, in images a second."""

import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from medgan.benchmark.measurements import Measurement
from medgan.benchmark.plain_method import QUICK, UPDATES, Setting, build_objective, build_state, random_batches
from medgan.benchmark.timing import in_turns, rate, ratio
from medgan.errors import JobError
from medgan.training.step import train_step

CPU = torch.device("cpu")
THREADS = 2
ANSWER_S = 180.0
TWO, ONE = "two processes, one thread each", "one process, two threads"


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures the quick setting, on the CPU only."""
    settings = f"{QUICK.text()} over all processes"
    if device.type != "cpu":
        return [Measurement("scaling", TWO, settings, str(device), note="a figure of the CPU", wanted=">= 0.9")]
    return compare(QUICK, limit_s=15.0 if quick else 90.0)


def compare(setting: Setting, *, limit_s: float) -> list[Measurement]:
    """Compares both groups of processes in turns; the group that waits sleeps."""
    with ExitStack() as stack:
        groups = {
            name: stack.enter_context(processes(setting, size=size, threads=THREADS // size))
            for name, size in ((TWO, 2), (ONE, 1))
        }
        steps = {name: lambda group=group: step(group) for name, group in groups.items()}
        times = in_turns(steps, device=CPU, limit_s=limit_s)
    images = UPDATES.generator * setting.batch_size
    settings = f"{setting.text()} over all processes"
    row = partial(Measurement, part="scaling", settings=settings, device="cpu", unit="images/s")
    speedup = ratio(times[ONE], times[TWO])
    return [
        row(figure=TWO, value=rate(images, times[TWO]), ratio=speedup, against=ONE, wanted=">= 0.9"),
        row(figure=ONE, value=rate(images, times[ONE])),
    ]


@contextmanager
def processes(setting: Setting, *, size: int, threads: int) -> Iterator[list[Connection]]:
    """Starts processes that train together and yields a connection to each; they end with the block."""
    context = torch.multiprocessing.get_context("spawn")
    share = replace(setting, batch_size=setting.batch_size // size)
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as folder:
        connections, started = [], []
        for rank in range(size):
            mine, theirs = context.Pipe()
            place = str(Path(folder) / "meeting")
            process = context.Process(target=serve, args=(rank, size, threads, share, place, theirs), daemon=True)
            process.start()
            theirs.close()
            connections.append(mine)
            started.append(process)
        try:
            yield connections
        finally:
            for process in started:
                process.kill()
                process.join(10)


def step(connections: list[Connection], *, limit_s: float = ANSWER_S) -> None:
    """Makes every process take a step.

    Raises:
        JobError: a process did not answer in time, or ended.
    """
    end = time.monotonic() + limit_s
    try:
        for rank, connection in enumerate(connections):  # noqa: B007 - the error below names it
            connection.send("step")
        for rank, connection in enumerate(connections):
            if not connection.poll(max(0.0, end - time.monotonic())):
                raise JobError("E-BENCH-01", limit_s=limit_s, rank=rank)
            connection.recv()
    except (EOFError, ConnectionError):
        raise JobError("E-BENCH-02", rank=rank) from None


def serve(rank: int, size: int, threads: int, setting: Setting, place: str, connection: Connection) -> None:
    """Runs in each process: takes its share of every step until the process is killed."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", FutureWarning)  # torch's, about a setting that the workers of a search use too
    state, objective = build_state(setting, CPU), build_objective(setting)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
        direction = state.directions[0]
        direction.generator, direction.discriminator = (
            nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
            for network in (direction.generator, direction.discriminator)
        )
    batches = random_batches(setting, CPU, seed=rank)
    while connection.recv():
        train_step(state, objective, batches, UPDATES)
        connection.send("done")
