"""Puts a service together: network, children that read and write images, scratch folder, log, listener."""

import glob
import logging
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from medgan.locks import held, is_held
from medgan.logs import LOG
from medgan.server.alias_watcher import Follower, Served
from medgan.server.app import build_app
from medgan.server.listener import listening
from medgan.server.request_queue import RequestQueue
from medgan.server.upload import Limits

LOCK_S = 10.0  # another service that starts may be checking the lock


@dataclass(frozen=True)
class Service:
    """Holds everything that a service needs.

    Attributes:
        named: returns the version that should be served now.
        load: returns a version; it may keep files in the folder it is given, until the version's network ends.
        digest: digest of the bearer token.
        scratch: a folder for this service only.
        log_file: log of events; it never names a patient.
        num_devices: number of devices on which the network runs.
    """

    named: Callable[[], str]
    load: Callable[[str, Path], Served]
    limits: Limits
    digest: str
    scratch: Path
    log_file: Path
    num_devices: int


@contextmanager
def running(service: Service, sock: socket.socket) -> Iterator[tuple[Follower, threading.Thread]]:
    """Runs a service at a socket inside the context; yields what it serves, and the thread that listens."""
    with ExitStack() as stack:
        stack.enter_context(_logged(service.log_file))
        scratch = stack.enter_context(_own_folder(service.scratch))
        requests = scratch / "requests"
        requests.mkdir(mode=0o700)
        follower = Follower(service.named, lambda number: service.load(number, scratch / f"model-{uuid.uuid4().hex}"))
        stack.callback(follower.close)
        queue = RequestQueue(follower, service.limits, requests, num_devices=service.num_devices)
        stack.callback(queue.close)
        app = build_app(follower, queue, limits=service.limits, digest=service.digest)
        yield follower, stack.enter_context(listening(app, sock))


@contextmanager
def _logged(log_file: Path) -> Iterator[None]:
    """Logs events of medgan to a file."""
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    before = LOG.level, LOG.propagate
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before[0])
        LOG.propagate = before[1]


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
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
    with suppress(OSError):  # another service has files there
        scratch.rmdir()
