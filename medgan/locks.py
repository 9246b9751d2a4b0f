"""Locks between processes by means of files; the system releases a lock however its process ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medgan.errors import InputError
from medgan.paths import redacted

OPENING_S = 120.0


@contextmanager
def held(lock_file: Path, what: str, *, limit_s: float) -> Iterator[None]:
    """Waits until no other process holds the lock, and holds it.

    Args:
        lock_file: path of the file; it is made if it does not exist, and is kept.
        what: name in the message of what the lock protects.

    Raises:
        InputError: another process held the lock for the whole time.
    """
    with lock_file.open("a") as file:
        end = time.monotonic() + limit_s
        while not _acquired(file.fileno()):
            if time.monotonic() > end:
                raise InputError("E-LOCK-01", what=what, lock_file=lock_file, limit_s=limit_s)
            time.sleep(0.2)
        yield


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Lets one process at a time open a SQLite store, as the first one makes its tables; a server needs no lock."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.parent.is_dir():  # opening a missing store raises its own error
        yield
        return
    with held(path.with_name(f".{path.name}.lock"), f"opening {redacted(uri)}", limit_s=OPENING_S):
        yield


def is_held(lock_file: Path) -> bool:
    """Says whether a process holds the lock right now."""
    with lock_file.open("a") as file:
        return not _acquired(file.fileno())


def _acquired(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def only_driver(lock_file: Path, study: str) -> Iterator[None]:
    """Keeps a second driver from running the study until this one ends, however it ends.

    Raises:
        InputError: another driver runs the study.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise InputError("E-LOCK-02", study=study, lock=lock.read().strip() or "another process") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        yield
