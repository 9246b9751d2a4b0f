"""Measures the memory of a resident worker group over many trials of changing sizes: a trial must free its memory."""

import os
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count, islice, product
from pathlib import Path

import torch

from medgan.benchmark.bench_data import quick_config
from medgan.benchmark.bench_handover import EPOCH_LIMIT_S
from medgan.benchmark.measurements import Measurement, spread_of
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.timing import described
from medgan.config import with_values
from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import cluster, resources_for
from medgan.distributed.resources import Resources
from medgan.distributed.worker import Epoch, Start
from medgan.distributed.worker_group import Group

SIZES = list(product((1, 2, 3), (8, 16, 24)))
"""Lists the blocks and base channels that the trials have in turn."""
SETTLED, TRIALS, QUICK_TRIALS = 20, 200, 38
"""Counts the trials before the first and the last measurement; these trials have networks of the same size."""
WORKER = "RayTrainWorker"


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures memory after the 20th trial and after the last: the 200th, or the 38th when quick."""
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as scratch:
        folder = Path(scratch)
        dataset = prepared_phantoms(folder, size=quick_config().data.size, patients=3, slices=8)
        with cluster() as capacity:
            resources, _ = resources_for(capacity, workers=None, concurrent=1)
            memory = memory_of(resources, dataset, folder, trials=QUICK_TRIALS if quick else TRIALS)
    where = described(device) if resources.use_gpu else f"cpu, {resources.cpus} thread each"
    return rows_of(memory, settings=f"{resources.workers} workers, 1 to 3 blocks, base 8 to 24, in turn", device=where)


def rows_of(memory: dict[int, int], *, settings: str, device: str) -> list[Measurement]:
    """Returns the first and the last measurement and the growth between; `memory` maps finished trials to bytes."""
    row = partial(Measurement, part="memory", settings=settings, device=device)
    (first, before), (last, after) = min(memory.items()), max(memory.items())
    kind = "GPU memory in use" if torch.cuda.is_available() else "resident set of the workers"
    return [
        *(
            row(figure=f"{kind}, after {number} trials", unit="MB", value=spread_of([memory[number] / 1e6]))
            for number in (first, last)
        ),
        row(
            figure="growth",
            unit="%",
            value=spread_of([100 * (after / before - 1)]),
            wanted="<= 5 %",
            note=f"{(after - before) / 1e6 * 100 / (last - first):.1f} MB a 100 trials; in between "
            f"{min(memory.values()) / 1e6:.0f} to {max(memory.values()) / 1e6:.0f} MB",
        ),
    ]


def memory_of(resources: Resources, dataset: PreparedDataset, folder: Path, *, trials: int) -> dict[int, int]:
    """Returns finished trials -> bytes, for each trial whose networks have the size of the 20th trial's."""
    group = Group(resources, storage=folder / "ray", limit_s=EPOCH_LIMIT_S)
    memory = {}
    try:
        group.wait_ready()
        for number, start in enumerate(islice(fresh_trials(dataset, folder), trials), start=1):
            group.ask(start)
            group.ask(Epoch())
            if number >= SETTLED and (number - SETTLED) % len(SIZES) == 0:
                memory[number] = memory_in_use()
    finally:
        group.close()
    return memory


def fresh_trials(dataset: PreparedDataset, folder: Path) -> Iterator[Start]:
    """Yields trials of one step each, of every size in turn."""
    for number in count():
        blocks, channels = SIZES[number % len(SIZES)]
        values = {"generator.num_blocks": blocks, "generator.base_channels": channels, "train.generator_steps": 1}
        yield Start(with_values(quick_config(), values), str(dataset.state), os.fspath(folder / f"trial-{number}"))


def memory_in_use() -> int:
    """Returns the bytes in use on the GPU, or the resident sets of the workers that this process started."""
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        return whole - free
    status = {
        int(folder.name): text
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and (text := _read(folder))
    }
    parents = {process: int(_found("PPid", text)) for process, text in status.items()}

    def is_mine(process: int) -> bool:
        while process not in (0, os.getpid()):
            process = parents.get(process, 0)
        return process != 0

    workers = [process for process in status if WORKER in _read(Path(f"/proc/{process}"), "cmdline")]
    mine = [int(_found("VmRSS", status[process])) * 1024 for process in workers if is_mine(process)]
    assert mine, f"no {WORKER} below this process"
    return sum(mine)


def _read(folder: Path, name: str = "status") -> str:
    try:
        return (folder / name).read_text()
    except OSError:  # the process has just ended
        return ""


def _found(name: str, status: str) -> str:
    found = re.search(rf"^{name}:\s*(\d+)", status, re.MULTILINE)
    return found[1] if found else "0"
