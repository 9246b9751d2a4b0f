"""`dataset.json`: what a prepared data set holds, in a form a person can read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medgan.errors import InputError
from medgan.tasks import Task

SCHEMA_VERSION = 1
FILE_NAME = "dataset.json"


class Scale(BaseModel):
    """Stored int16 to physical unit: value = stored * slope + intercept."""

    model_config = ConfigDict(frozen=True)
    slope: float
    intercept: float


class Patient(BaseModel):
    """One patient of a prepared data set.

    Attributes:
        slices: slices kept; `slice_numbers` are their places in the target series, from 0.
        dropped: slices left out because they lack PET.
        affine: the whole grid's (its first slice is the target's first), in mm; see `Volume.affine`.
        sha256: of each file in the folder.
    """

    model_config = ConfigDict(frozen=True)
    hash: str
    role: str
    folder: str
    slices: int
    slice_numbers: list[int]
    dropped: int
    source: Scale
    target: Scale
    affine: list[list[float]]
    sha256: dict[str, str]


class Manifest(BaseModel):
    """A prepared data set; `digest` identifies its content, wherever and whenever it was made."""

    model_config = ConfigDict(frozen=True)
    schema_version: int
    medgan: str
    task: Task
    spacing_mm: float
    size: int
    phantom: bool
    patients: list[Patient]
    notes: list[str]
    digest: str = ""


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its digest: SHA-256 over tasks, settings, roles and the arrays' own digests."""
    content = manifest.model_dump(mode="json", exclude={"digest", "medgan", "notes"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return manifest.model_copy(update={"digest": hashlib.sha256(canonical.encode()).hexdigest()})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared data set.

    Raises:
        InputError: there is none, it has another schema version, or it is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise InputError(f"{folder}: expected a prepared data set; there is no {FILE_NAME}")
    try:
        version = json.loads(path.read_text()).get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(f"{path}: expected schema version {SCHEMA_VERSION}, got {version}; prepare it again")
        return Manifest.model_validate_json(path.read_text())
    except (json.JSONDecodeError, AttributeError, ValidationError) as error:
        raise InputError(f"{path}: expected a data set's description, got a damaged file; prepare it again") from error
