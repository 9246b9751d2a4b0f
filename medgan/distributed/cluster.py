"""Joins the Ray cluster at hand, or starts one on this machine; says what it offers."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from medgan.config import at_least_one
from medgan.distributed.worker_group import Resources
from medgan.errors import InputError, JobError
from medgan.logs import LOG

STARTS = 3
TRANSIENT = ("timed out during startup", "already in use", "already occupied")  # what Ray says where a second try helps
SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # do not warn about CUDA_VISIBLE_DEVICES on every start
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that diverged in its first epoch has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study database is the truth, not Tune's snapshots
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Capacity:
    """What a cluster, or this machine, has in all."""

    cpus: int
    gpus: int
    nodes: int = 1

    def groups(self, resources: Resources) -> int:
        """How many worker groups fit at once."""
        by_cpu = self.cpus // (resources.workers * resources.cpus)
        return min(by_cpu, self.gpus // resources.workers) if resources.use_gpu else by_cpu


def machine() -> Capacity:
    """What this machine has."""
    cpus = float(len(os.sched_getaffinity(0)))
    quota = Path("/sys/fs/cgroup/cpu.max")  # a container's share, which the affinity does not show
    if quota.exists() and (limits := quota.read_text().split())[0] != "max":
        cpus = min(cpus, int(limits[0]) / int(limits[1]))
    return Capacity(max(1, int(cpus)), torch.cuda.device_count())


def refuse_what_cannot_fit(resources: Resources, capacity: Capacity) -> None:
    """Ray waits for ever for what no node can give.

    Raises:
        InputError: not one group fits.
    """
    if capacity.groups(resources) < 1:
        wanted, came = ("GPU", capacity.gpus) if resources.use_gpu else ("CPU core", capacity.cpus)
        raise InputError("E-CLUSTER-01", workers=resources.workers, wanted=wanted, whose=_whose(capacity), came=came)


def resources_for(capacity: Capacity, *, workers: int | None, concurrent: int | None) -> tuple[Resources, int]:
    """What one group takes, and how many run at once.

    Args:
        capacity: of the machine or the cluster.
        workers: DDP processes a trial; None: one on a GPU, two on the CPU.
        concurrent: trials at once; None: what fits.

    Raises:
        InputError: more than the machine or the cluster can ever give.
    """
    gpu = capacity.gpus > 0
    workers = min(1 if gpu else 2, capacity.cpus) if workers is None else at_least_one("--workers", workers)
    resources = Resources(workers, device="gpu" if gpu else "cpu")
    refuse_what_cannot_fit(resources, capacity)
    fits = capacity.groups(resources)
    concurrent = fits if concurrent is None else at_least_one("--concurrent", concurrent)
    if concurrent > fits:
        raise InputError("E-CLUSTER-02", concurrent=concurrent, fits=fits, workers=workers)
    cpus = 1 if capacity.nodes > 1 else max(1, capacity.cpus // (workers * concurrent))
    return Resources(workers, cpus, resources.device), concurrent


@contextmanager
def cluster() -> Iterator[Capacity]:
    """A connection to the cluster that RAY_ADDRESS names, else a new one on this machine that ends with the job.

    Clusters that happen to run on this machine are left alone: their cores may be taken, and Ray would wait for ever.

    Yields:
        The cluster's capacity.

    Raises:
        InputError: RAY_ADDRESS names no cluster that can be joined.
        JobError: none could be started here.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    logging.getLogger("ray").propagate = False
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if is_given():
        try:
            ray.init(address=os.environ["RAY_ADDRESS"], **settings)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            address, reason = os.environ["RAY_ADDRESS"], str(error).splitlines()[0]
            raise InputError("E-CLUSTER-03", address=address, reason=reason) from None
    else:
        _start(settings)
    try:
        total = ray.cluster_resources()
        yield Capacity(int(total.get("CPU", 0)), int(total.get("GPU", 0)), sum(node["Alive"] for node in ray.nodes()))
    finally:
        ray.shutdown()


def is_given() -> bool:
    """Whether a cluster is named by RAY_ADDRESS, as inside a submitted job."""
    return bool(os.environ.get("RAY_ADDRESS"))


def is_running() -> bool:
    """Whether this process is connected to a cluster."""
    return bool(ray.is_initialized())


def _start(settings: dict[str, Any]) -> None:
    """A cluster on this machine; what an attempt in vain leaves behind ends with this process, as the cluster does."""
    for attempt in range(1, STARTS + 1):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # Ray's helper actors find the cluster by this address although others may share the host
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        try:
            ray.init(
                address="local",
                num_cpus=machine().cpus,
                num_gpus=machine().gpus,
                include_dashboard=True,
                dashboard_port=port,
                object_store_memory=256 << 20,  # nothing large passes through it
                **settings,
            )
            return
        except Exception as error:  # Ray raises nothing narrower on a busy machine, or when its port was just taken
            if not any(reason in str(error) for reason in TRANSIENT):
                raise
            LOG.warning("Ray did not start, attempt %d of %d: %s", attempt, STARTS, error)
            ray.shutdown()
    raise JobError("E-CLUSTER-04", starts=STARTS)


def _whose(capacity: Capacity) -> str:
    return "machine" if capacity.nodes == 1 else f"cluster of {capacity.nodes} nodes"
