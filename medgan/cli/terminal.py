"""The terminal belongs to the person: what engines print goes to a log file."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from medgan.logs import LOG


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
