"""Measures how busy this machine is, under the names that MLflow's pages show as system metrics."""

import shutil
import subprocess
import time
from pathlib import Path

EVERY_S = 10.0
LIMIT_S = 5


class Machine:
    """Measures this machine, which is the driver's where workers run elsewhere, at most every ten seconds."""

    def __init__(self) -> None:
        self.program = shutil.which("nvidia-smi")
        self.seen = self.gpus_seen = -EVERY_S
        self.ticks = _ticks()
        self.values: dict[str, float] = {}
        self.gpus: dict[str, float] = {}

    def now(self) -> dict[str, float]:
        """Returns the use of all cores since the last measurement in percent, and the memory in use."""
        if time.monotonic() - self.seen >= EVERY_S:
            before, self.ticks, self.seen = self.ticks, _ticks(), time.monotonic()
            busy, every = self.ticks[0] - before[0], self.ticks[1] - before[1]
            self.values = _memory()
            if every:
                self.values["system/cpu_utilization_percentage"] = round(100 * busy / every, 1)
        return self.values

    def add_gpus(self, values: dict[str, float], asked_at: float) -> None:
        """Adds the use and memory of each GPU, which takes a while; after one failure it does not run nvidia-smi again.

        Args:
            asked_at: time of the request by `time.monotonic`; nothing is added `EVERY_S` or more after it.
        """
        now = time.monotonic()
        if self.program is None or now - asked_at >= EVERY_S:
            return
        if now - self.gpus_seen >= EVERY_S:
            self.gpus, self.gpus_seen = _gpus(self.program), now
            if not self.gpus:
                self.program = None
        values.update(self.gpus)


def _ticks() -> tuple[int, int]:
    """Returns the kernel's ticks of all cores: those at work, and all."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, idle, waiting, *rest = map(int, first.split()[1:9])
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + waiting


def _memory() -> dict[str, float]:
    rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows}
    used = kib["MemTotal"] - kib["MemAvailable"]
    return {
        "system/system_memory_usage_megabytes": round(used * 1024 / 1e6, 1),
        "system/system_memory_usage_percentage": round(100 * used / kib["MemTotal"], 1),
    }


def _gpus(program: str) -> dict[str, float]:
    """Returns the use and memory of each GPU; nothing where nvidia-smi finds no GPU or does not answer."""
    query = [program, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        rows = subprocess.run(query, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout.splitlines()
        read = [(float(busy), float(mib)) for busy, mib in (row.split(",") for row in rows)]
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return {
        name: value
        for number, (busy, mib) in enumerate(read)
        for name, value in (
            (f"system/gpu_{number}_utilization_percentage", busy),
            (f"system/gpu_{number}_memory_usage_megabytes", round(mib * 2**20 / 1e6, 1)),
        )
    }
