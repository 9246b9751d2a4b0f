"""Deploys a model with Ray Serve: each replica holds the model, follows its alias and answers HTTP requests."""

import glob
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve

from medgan.distributed.cluster import Capacity
from medgan.locks import held, is_held
from medgan.logs import LOG
from medgan.server.alias_watcher import Follower, Served
from medgan.server.app import build_app
from medgan.server.upload import Limits

SPARE = 64  # requests for /health and /model, and refusals, while all places are in use
STOP_S = 5.0
LOCK_S = 10.0  # another replica that starts may be checking the lock


@dataclass(frozen=True)
class Service:
    """Holds everything that a replica needs.

    Attributes:
        named: returns the version that should be served now.
        load: returns a version, on a device such as "cuda" or "cpu".
        digest: digest of the bearer token.
        scratch: a folder for this service only.
        log_file: log of events; it never names a patient.
    """

    named: Callable[[], str]
    load: Callable[[str, str], Served]
    limits: Limits
    digest: str
    scratch: Path
    log_file: Path


class Replica:
    """Runs the HTTP interface in one process that holds the model."""

    def __init__(self, service: Service, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        _log_without_patients(service.log_file)
        self._resources = ExitStack()
        scratch = self._resources.enter_context(_own_folder(service.scratch))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        follower = Follower(service.named, lambda number: service.load(number, device))
        self._app = build_app(follower, limits=service.limits, digest=service.digest, scratch=scratch)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Returns the interface to Ray Serve."""
        return self._app


def application(service: Service, capacity: Capacity) -> Any:
    """Returns the service as Ray Serve runs it: one replica for each GPU, or one on the CPU."""
    replicas = max(1, capacity.gpus)
    cpus = max(1, capacity.cpus // replicas)
    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name="medgan",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus, "num_gpus": min(1, capacity.gpus)},
        max_ongoing_requests=service.limits.requests + SPARE,
        max_queued_requests=SPARE,
        graceful_shutdown_timeout_s=STOP_S,
        graceful_shutdown_wait_loop_s=0.5,
        max_constructor_retry_count=2,
    )
    return deployment.bind(service, cpus)


def _log_without_patients(log_file: Path) -> None:
    """Logs events of medgan to a file; disables pydicom's warnings, as they quote the values of headers."""
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").disabled = True
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


@contextmanager
def _own_folder(scratch: Path) -> Iterator[Path]:
    """Yields an empty folder for this process, locked before it exists; removes those of all ended processes."""
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = scratch / f"{socket.gethostname()}-{os.getpid()}"
    for lock in scratch.parent.glob(f"*/{glob.escape(socket.gethostname())}-*.lock"):
        if not is_held(lock):
            shutil.rmtree(lock.with_name(lock.name.removesuffix(".lock")), ignore_errors=True)
    with held(folder.with_name(f"{folder.name}.lock"), f"scratch folder {folder}", limit_s=LOCK_S):
        folder.mkdir(exist_ok=True, mode=0o700)
        yield folder
