"""What made a result: code, data, libraries, machine; and how any two of these accounts differ."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import medgan

CONFIG_FILE, PROVENANCE_FILE = "config.json", "provenance.json"
LIBRARIES = ("torch", "ray", "optuna", "mlflow", "numpy", "pydicom", "SimpleITK", "torchmetrics")
COMPARED = ("code", "versions", "hardware", "run")

Facts = dict[str, Any]
"""An account: section -> name -> value, as JSON holds it; never a host's, a user's or a folder's name."""


def code_version() -> dict[str, str]:
    """`commit` and where it was taken from: git, the variable MEDGAN_COMMIT, or the package's files."""
    package = Path(medgan.__file__).parent
    tracked = _said("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py")  # not a repository around
    if tracked and (commit := _said("git", "-C", str(package), "rev-parse", "HEAD")):
        dirty = _said("git", "-C", str(package), "status", "--porcelain", "--", str(package))
        return {"commit": commit + ("-dirty" if dirty else ""), "commit_source": "git"}
    if commit := os.environ.get("MEDGAN_COMMIT", ""):
        return {"commit": commit, "commit_source": "MEDGAN_COMMIT"}
    return {"commit": package_digest(), "commit_source": "package digest"}


def package_digest() -> str:
    """SHA-256 of the package's modules, which tells apart what a commit with changes on top does not."""
    digest = hashlib.sha256()
    for path in sorted(Path(medgan.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Of Python and what computes; read from their packages, so that nothing is imported."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def hardware() -> dict[str, Any]:
    """This machine's processor, cores that may be used, memory, and GPUs with their driver."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    gpus, driver = _gpus()
    return {
        "cpu": found[1] if found else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpus": gpus,
        "gpu_driver": driver,
        "cuda": _cuda(),
    }


def job_facts(*, data_digest: str, split_digest: str) -> Facts:
    """What all runs of a job share.

    Args:
        data_digest: of the prepared data set.
        split_digest: of which patient has which role.
    """
    return {
        "data": {"digest": data_digest, "split": split_digest},
        "code": {**code_version(), "package": package_digest()},
        "versions": library_versions(),
        "hardware": hardware(),
    }


def run_facts(job: Facts, *, workers: int, threads: int, device: str, seed: int) -> Facts:
    """What one training adds to its job.

    Args:
        job: see `job_facts`.
        workers: processes.
        threads: CPU threads of each.
        device: gpu or cpu.
        seed: of everything random.
    """
    return {**job, "run": {"workers": workers, "threads": threads, "device": device, "seed": seed}}


def tags_from(facts: Facts) -> dict[str, Any]:
    """The few facts by which runs are filtered."""
    return {
        "medgan.data_digest": facts["data"]["digest"],
        "medgan.split_digest": facts["data"]["split"],
        "medgan.commit": facts["code"]["commit"],
        "medgan.device": facts["run"]["device"],
        "medgan.workers": facts["run"]["workers"],
    }


def attach(take: Callable[[Path], None], config: Mapping[str, Any], facts: Facts) -> None:
    """Hands a run its resolved configuration, exactly, and its account, as two JSON files.

    Args:
        take: copies a file, such as a tracker's `artifact`.
        config: all settings, nested.
        facts: see `run_facts`.
    """
    with tempfile.TemporaryDirectory(prefix="medgan-facts-") as folder:
        for name, content in ((CONFIG_FILE, config), (PROVENANCE_FILE, facts)):
            path = Path(folder) / name
            path.write_text(json.dumps(content, indent=1))
            take(path)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each thing that decides a result besides data and settings, and is not what it was."""
    before, after = dict(_leaves(then)), dict(_leaves(now))
    return [
        f"{name}: {before.get(name, 'not recorded')} then, {after.get(name, 'not known')} now"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _leaves(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for section in COMPARED:
        for name, value in facts.get(section, {}).items():
            yield f"{section}.{name}", ", ".join(value) or "none" if isinstance(value, list) else str(value)


def _gpus() -> tuple[list[str], str]:
    """The GPUs' names, and their driver's version; nothing where there is no NVIDIA driver."""
    said = _said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    rows = [line.rsplit(", ", 1) for line in said.splitlines() if ", " in line]
    return [row[0] for row in rows], rows[0][1] if rows else "none"


def _cuda() -> str:
    """The newest CUDA that the driver serves; the one torch was built for is part of torch's version."""
    found = re.search(r"CUDA (?:UMD )?Version: *([\d.]+)", _said("nvidia-smi"))
    return found[1] if found else "none"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _said(*command: str) -> str:
    """What a command wrote; nothing where it is not there, failed, or took too long."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
