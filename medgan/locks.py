"""Locks between processes, on files; the system releases them however a process ends."""

from __future__ import annotations

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
        lock_file: made if need be; it stays.
        what: is waited for, as a message names it.
        limit_s: longest wait.

    Raises:
        InputError: another process held it all that time.
    """
    with lock_file.open("a") as file:
        end = time.monotonic() + limit_s
        while not _taken(file.fileno()):
            if time.monotonic() > end:
                raise InputError("E-LOCK-01", what=what, lock_file=lock_file, limit_s=limit_s)
            time.sleep(0.2)
        yield


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """One process at a time opens a SQLite store: the first makes its tables. A server looks after itself."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.parent.is_dir():  # what is not there, whoever opens it refuses
        yield
        return
    with held(path.with_name(f".{path.name}.lock"), f"opening {redacted(uri)}", limit_s=OPENING_S):
        yield


def is_held(lock_file: Path) -> bool:
    """Whether a process holds the lock right now."""
    with lock_file.open("a") as file:
        return not _taken(file.fileno())


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def only_driver(lock_file: Path, study: str) -> Iterator[None]:
    """Holds a study against a second driver, until this one ends, however it ends.

    Raises:
        InputError: another driver holds it.
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
