"""Writes and reads a trial's folder on shared storage: last state, best generator, pictures of fixed slices."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from medgan.data.atomic_write import flush_folder
from medgan.training.state import State, load_tensors, tensors

LAST, BEST, PICTURES = "last.safetensors", "best.safetensors", "pictures.npz"


def save_tensors(path: Path, values: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes tensors and JSON metadata completely or not at all: temporary name, fsync, rename."""
    part = path.with_suffix(".part")
    save_file(dict(values), part, metadata={name: json.dumps(value) for name, value in (metadata or {}).items()})
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    flush_folder(path.parent)


def save_state(folder: Path, state: State) -> None:
    """Replaces the folder's last state; the history is in the same file, so both always agree."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / LAST, tensors(state), {"history": state.history})


def restore(folder: Path, state: State) -> bool:
    """Loads the folder's last state into a freshly built one; returns False where the folder has none."""
    if not (folder / LAST).exists():
        return False
    load_tensors(state, load_file(folder / LAST))
    state.history = read_history(folder)
    return True


def read_history(folder: Path) -> list[dict[str, float]]:
    """Returns one row of metrics for each finished epoch of the folder's last state, or an empty list."""
    try:
        with safe_open(folder / LAST, framework="pt") as file:
            return json.loads(file.metadata()["history"])
    except (FileNotFoundError, RuntimeError):  # deleted after the end of the trial, perhaps at this moment
        if (folder / LAST).exists():
            raise
        return []
