"""Joins the Ray cluster that RAY_ADDRESS names, or starts one on this machine, and reads its capacity."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from medgan.config import at_least_one
from medgan.distributed.resources import Capacity, Resources, machine
from medgan.errors import InputError, JobError
from medgan.logs import LOG

STARTS = 3
ON_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Workers on one machine listen for each other there; who sets these variables, decides."""
ANYONE = "MEDGAN_LET_ANYONE_RUN_CODE_AS_ME"
TRANSIENT = ("timed out during startup", "already in use", "already occupied")  # in Ray's error where a retry helps
SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # do not warn about CUDA_VISIBLE_DEVICES on every start
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that diverged in its first epoch has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study is in its database, Tune's snapshots are not used
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def refuse_what_cannot_fit(resources: Resources, capacity: Capacity) -> None:
    """Raises InputError where not one worker group fits, because Ray would wait forever for it."""
    if capacity.groups(resources) < 1:
        wanted, came = ("GPU", capacity.gpus) if resources.use_gpu else ("CPU core", capacity.cpus)
        raise InputError("E-CLUSTER-01", workers=resources.workers, wanted=wanted, whose=_whose(capacity), came=came)


def resources_for(capacity: Capacity, *, workers: int | None, concurrent: int | None) -> tuple[Resources, int]:
    """Returns the resources of one worker group, and how many groups run at once.

    Args:
        workers: number of DDP processes of a trial; None: one on a GPU, two on the CPU.
        concurrent: number of trials at once; None: as many as fit.

    Raises:
        InputError: the machine or the cluster has less than this.
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
    """Connects to the cluster that RAY_ADDRESS names, or starts one on this machine that ends with the job.

    Other clusters on this machine are not used: their cores may be busy, and Ray would wait forever.

    Raises:
        InputError: the cluster that RAY_ADDRESS names cannot be joined, or Ray is to let everyone in.
        JobError: no cluster could be started on this machine.
    """
    _refuse_open_doors()
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


def _refuse_open_doors() -> None:
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode != "token" and os.environ.get(ANYONE) != "1":
        raise InputError("E-CLUSTER-05", mode=mode, option=ANYONE)


def _keep_token_private() -> None:
    """Lets only the owner read Ray's token, which Ray writes for everyone to read."""
    with suppress(OSError):
        Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser().chmod(0o600)


def is_given() -> bool:
    """Returns whether RAY_ADDRESS names a cluster, as it does inside a submitted job."""
    return bool(os.environ.get("RAY_ADDRESS"))


def is_running() -> bool:
    """Returns whether this process is connected to a cluster."""
    return bool(ray.is_initialized())


def _start(settings: dict[str, Any]) -> None:
    """Starts a cluster on this machine; it ends with this process, and so do the remains of a failed attempt."""
    ray_constants.ENABLE_RAY_CLUSTER = False  # all of Ray's ports are on loopback: what its variable does, if set early
    os.environ.update({name: os.environ.get(name, value) for name, value in ON_LOOPBACK.items()})
    for attempt in range(1, STARTS + 1):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # Ray's own actors find this cluster by the address, also where other clusters run on the host
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        try:
            ray.init(
                address="local",
                num_cpus=machine().cpus,
                num_gpus=machine().gpus,
                include_dashboard=True,
                dashboard_port=port,
                object_store_memory=256 << 20,  # no large object is stored in it
                dashboard_host="127.0.0.1",
                **settings,
            )
            _keep_token_private()
            return
        except Exception as error:  # Ray has no narrower class for a busy machine or a taken port
            if not any(reason in str(error) for reason in TRANSIENT):
                raise
            LOG.warning("Ray did not start, attempt %d of %d: %s", attempt, STARTS, error)
            ray.shutdown()
    raise JobError("E-CLUSTER-04", starts=STARTS)


def _whose(capacity: Capacity) -> str:
    return "machine" if capacity.nodes == 1 else f"cluster of {capacity.nodes} nodes"
