"""Records what made a result (code, data, libraries, machine) and compares two such records."""

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
COMPARED = ("code", "versions", "hardware", "features", "run")

Facts = dict[str, Any]
"""Describes a record: section -> name -> value, as JSON; it never names a host, a user or a folder."""


def code_version() -> dict[str, str]:
    """Returns `commit` and its source: git, the variable MEDGAN_COMMIT, or the package's files."""
    package = Path(medgan.__file__).parent
    tracked = _output("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py")  # by its own repository
    if tracked and (commit := _output("git", "-C", str(package), "rev-parse", "HEAD")):
        dirty = _output("git", "-C", str(package), "status", "--porcelain", "--", str(package))
        return {"commit": commit + ("-dirty" if dirty else ""), "commit_source": "git"}
    if commit := os.environ.get("MEDGAN_COMMIT", ""):
        return {"commit": commit, "commit_source": "MEDGAN_COMMIT"}
    return {"commit": package_digest(), "commit_source": "package digest"}


def package_digest() -> str:
    """Returns the SHA-256 of the package's modules, which differs between two versions of uncommitted changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(medgan.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and the main libraries; reads package metadata and imports nothing."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def hardware() -> dict[str, Any]:
    """Returns this machine's processor, number of usable cores, memory, and GPUs with their driver."""
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
    """Returns the facts that all runs of a job share.

    Args:
        split_digest: digest of the patients' roles.
    """
    return {
        "data": {"digest": data_digest, "split": split_digest},
        "code": {**code_version(), "package": package_digest()},
        "versions": library_versions(),
        "hardware": hardware(),
    }


def run_facts(job: Facts, *, workers: int, threads: int, device: str, seed: int, features: Mapping[str, Any]) -> Facts:
    """Returns the facts of a job together with those of one training.

    Args:
        threads: CPU threads of each process.
        device: gpu or cpu.
        features: feature extractor of the losses, see `medgan.training.frozen_features`; empty without one.
    """
    run = {"workers": workers, "threads": threads, "device": device, "seed": seed}
    return {**job, "features": dict(features), "run": run}


def tags_from(facts: Facts) -> dict[str, Any]:
    """Returns the few facts by which a person filters runs, as MLflow tags."""
    return {
        "medgan.data_digest": facts["data"]["digest"],
        "medgan.split_digest": facts["data"]["split"],
        "medgan.commit": facts["code"]["commit"],
        "medgan.device": facts["run"]["device"],
        "medgan.workers": facts["run"]["workers"],
    }


def attach(take: Callable[[Path], None], config: Mapping[str, Any], facts: Facts) -> None:
    """Attaches the exact resolved configuration and the facts to a run, as two JSON files.

    Args:
        take: copies a file, such as a tracker's `artifact`.
    """
    with tempfile.TemporaryDirectory(prefix="medgan-facts-") as folder:
        for name, content in ((CONFIG_FILE, config), (PROVENANCE_FILE, facts)):
            path = Path(folder) / name
            path.write_text(json.dumps(content, indent=1))
            take(path)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line for each fact that changed, of those that affect a result besides data and settings."""
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
    """Returns the GPUs' names and their driver's version; no name and "none" without an NVIDIA driver."""
    output = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    rows = [line.rsplit(", ", 1) for line in output.splitlines() if ", " in line]
    return [row[0] for row in rows], rows[0][1] if rows else "none"


def _cuda() -> str:
    """Returns the newest CUDA version that the driver supports; torch's version names the one it was built for."""
    found = re.search(r"CUDA (?:UMD )?Version: *([\d.]+)", _output("nvidia-smi"))
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


def _output(*command: str) -> str:
    """Returns the output of a command; an empty text if it is missing, failed, or took too long."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
