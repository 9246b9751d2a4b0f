"""The terminal belongs to the person: what engines print goes to a log file."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from medgan.errors import InputError

LOG = logging.getLogger("medgan")


@contextmanager
def quiet_engines(log_file: Path) -> Iterator[Console]:
    """Everything written to standard output and error, by any library, goes to `log_file` meanwhile.

    Yields:
        A console that still writes to the terminal.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    with log_file.open("a") as sink, os.fdopen(os.dup(1), "w", buffering=1) as terminal, warnings.catch_warnings():
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield Console(file=terminal, highlight=False, width=None if terminal.isatty() else 120)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            LOG.removeHandler(handler)
            handler.close()


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
            raise InputError(
                f"study {study}: already run by {lock.read().strip() or 'another process'}; wait for it"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        yield


def duration(seconds: float) -> str:
    """For a person: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
