"""Preparing a data set, with a person looking on; free of torch, so that a data set at hand is found at once."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medgan.data.manifest import Manifest
from medgan.data.prepare import Request, prepare
from medgan.data.split import ROLES


def prepared(request: Request, console: Console) -> Path:
    """The prepared data set's folder; shows how far it is and how long yet."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("patients prepared", total=None)
        return prepare(request, lambda done, total: bar.update(row, completed=done, total=total))


def described(manifest: Manifest) -> str:
    """A data set in one line: patients and slices of each role, the grid, what was dropped."""
    roles = []
    for role in ROLES:
        counts = [patient.slices for patient in manifest.patients if patient.role == role]
        roles.append(f"{len(counts)} {role} patient{'s' * (len(counts) != 1)} ({sum(counts)} slices)")
    dropped = sum(patient.dropped for patient in manifest.patients)
    kind = "phantoms: " if manifest.phantom else ""
    rest = f"; {dropped} slices that show no {manifest.task.source.modality} left out" if dropped else ""
    return f"{kind}{', '.join(roles)}, {manifest.size} px of {manifest.spacing_mm:g} mm{rest}"
