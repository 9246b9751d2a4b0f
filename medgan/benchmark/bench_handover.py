"""Measures the time between two trials: on a resident worker group, and with a new Ray Train `TorchTrainer` each."""

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch

from medgan.benchmark.bench_data import quick_config
from medgan.benchmark.measurements import Measurement, Spread, spread_of
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.timing import described
from medgan.config import with_values
from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import cluster, resources_for
from medgan.distributed.resources import Resources
from medgan.distributed.worker import Epoch, Start
from medgan.distributed.worker_group import Group

EPOCH_LIMIT_S = 300.0
RESIDENT, ANEW = "resident group", "a new TorchTrainer a trial"
TRIALS = 6


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures the seconds from a trial's last epoch to the first step of the next, with another network size."""
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as scratch:
        folder = Path(scratch)
        dataset = prepared_phantoms(folder, size=quick_config().data.size, slices=8)
        with cluster() as capacity:
            resources, _ = resources_for(capacity, workers=None, concurrent=1)
            resident, anew = handovers(resources, dataset, folder, starts=2 if quick else 4)
    row = partial(
        Measurement,
        part="handover",
        settings=f"quick, {resources.workers} workers, 1 to 3 blocks in turn",
        device=described(device) if resources.use_gpu else f"cpu, {resources.cpus} thread each",
        unit="s",
    )
    slow, times = spread_of(anew), spread_of(resident)
    return [
        row(
            figure=RESIDENT,
            value=times,
            ratio=Spread(*(slow.median / one for one in (times.median, times.high, times.low))),
            against=ANEW,
            wanted=">= 50x, <= 0.5 s",
            note=f"the ratio is of {ANEW}'s median to {len(resident)} hand-overs",
        ),
        row(figure=ANEW, value=slow, note="the first had no trainer before it to be ended"),
    ]


def handovers(
    resources: Resources, dataset: PreparedDataset, folder: Path, *, starts: int
) -> tuple[list[float], list[float]]:
    """Returns the seconds of each hand-over on one group, and with a new group for each trial."""
    trials = fresh_trials(dataset, folder)
    anew: list[float] = []
    group: Group | None = None
    for _ in range(starts):
        began = time.perf_counter()
        if group is not None:
            group.close()
        group = Group(resources, storage=folder / "ray", limit_s=EPOCH_LIMIT_S)
        group.wait_ready()
        group.ask(next(trials))
        anew.append(time.perf_counter() - began)
        group.ask(Epoch())
    assert group is not None, "there is at least one start"
    try:
        resident = []
        for _ in range(TRIALS):
            group.ask(next(trials))
            resident.append(float(group.ask(Epoch())["time/handover_s"]))
    finally:
        group.close()
    return resident, anew


def fresh_trials(dataset: PreparedDataset, folder: Path) -> Iterator[Start]:
    """Yields trials of the quick preset with one to three blocks, each with a folder of its own."""
    for number in count():
        config = with_values(quick_config(), {"generator.num_blocks": number % 3 + 1})
        yield Start(config, str(dataset.state), os.fspath(folder / f"trial-{number}"))
