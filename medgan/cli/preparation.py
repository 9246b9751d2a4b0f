"""Preparing a data set, with a person looking on; free of torch, so that a data set at hand is found at once."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare


def prepared(request: PrepareRequest, console: Console) -> Path:
    """The prepared data set's folder; shows how far it is and how long yet."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("patients prepared", total=None)
        return prepare(request, lambda done, total: bar.update(row, completed=done, total=total))
