"""`dataset.json`: what a prepared data set holds, in a form a person can read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from medgan.data.atomic_write import write_atomically
from medgan.data.prepare.split import ROLES
from medgan.errors import InputError
from medgan.tasks import Task

SCHEMA_VERSION = 2
FILE_NAME = "dataset.json"
STATES = "states"
"""Folder of the manifests of every state a data set was in, by digest: whoever uses one keeps it when patients come."""


class IntensityScale(BaseModel):
    """Stored int16 to physical unit: value = stored * slope + intercept."""

    model_config = ConfigDict(frozen=True)
    slope: float
    intercept: float

    def physical(self, stored: np.ndarray) -> np.ndarray:
        """float32 of the same shape, in the image's unit."""
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


class Patient(BaseModel):
    """One patient of a prepared data set.

    Attributes:
        folder: of its arrays, relative to the data set's.
        slices: slices kept; `slice_numbers` are their places in the target series, from 0.
        dropped: slices left out because they show nothing of the source.
        source, target: how their stored numbers become values.
        source_window, target_window: (low, high) in their units that [-1, 1] stands for.
        affine: the whole grid's (its first slice is the target's first), in mm; see `Volume.affine`.
        overlap: Dice coefficient of what is body in source and in target, between 0 and 1.
        mutual_information: of source and target, normalized (Studholme et al., 1999), between 1 and 2.
        sha256: of each array's file.
        notes: what a person should know about the choices made.
        drawn: what was drawn for a simulated source, noise left out.
    """

    model_config = ConfigDict(frozen=True)
    hash: str
    role: str
    folder: str
    slices: int
    slice_numbers: list[int]
    dropped: int
    source: IntensityScale
    target: IntensityScale
    source_window: tuple[float, float]
    target_window: tuple[float, float]
    affine: list[list[float]]
    overlap: float
    mutual_information: float
    sha256: dict[str, str]
    notes: list[str]
    drawn: dict[str, list]


class Manifest(BaseModel):
    """A prepared data set.

    Attributes:
        simulation: settings of the sources that were simulated; empty where none was.
        set_aside: patients that were not used, by hash, and why.
        passed_over: files that were not used: reason -> how many.
        key_id: tells which key the patients' hashes were made with; see `medgan.data.prepare.split.key_id`.
        inputs: keyed digest of plan and input files, which tells whether anything is new.
        digest: identifies the content, wherever and whenever it was made.
    """

    model_config = ConfigDict(frozen=True)
    schema_version: int
    medgan: str
    task: Task
    spacing_mm: float
    size: int
    phantom: bool
    simulation: dict[str, float]
    patients: list[Patient]
    set_aside: list[str]
    passed_over: dict[str, int]
    key_id: str = ""
    inputs: str
    digest: str = ""

    @property
    def notes(self) -> list[str]:
        """What a person should know: who was set aside, and which choices were made."""
        return [*self.set_aside, *(f"patient {one.hash}: {note}" for one in self.patients for note in one.notes)]

    def hashes(self, role: str) -> tuple[str, ...]:
        """The patients of a role, in the order of their hashes."""
        return tuple(sorted(one.hash for one in self.patients if one.role == role))

    @property
    def split_digest(self) -> str:
        """SHA-256 over which patient has which role, whatever was made of their images."""
        roles = "\n".join(sorted(f"{one.hash} {one.role}" for one in self.patients))
        return hashlib.sha256(roles.encode()).hexdigest()


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its digest: SHA-256 over tasks, settings, roles and the arrays' own digests."""
    left_out = {"digest", "medgan", "set_aside", "passed_over", "key_id", "inputs"}
    content = manifest.model_dump(mode="json", exclude=left_out)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return manifest.model_copy(update={"digest": hashlib.sha256(canonical.encode()).hexdigest()})


def store_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest as a state of its own, and as the newest."""
    (folder / STATES).mkdir(exist_ok=True)
    content = manifest.model_dump_json(indent=1).encode()
    write_atomically(folder / STATES / f"{manifest.digest}.json", content)
    write_atomically(folder / FILE_NAME, content)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared data set: of its newest state, or of one by its file in `states`.

    Raises:
        InputError: there is none, it has another schema version, or it is damaged.
    """
    path = folder if folder.suffix == ".json" else folder / FILE_NAME
    if not path.is_file():
        raise InputError("E-DATASET-04", parent=path.parent, path_name=path.name)
    return parsed_manifest(path.read_bytes(), str(path))


def parsed_manifest(content: bytes, where: str) -> Manifest:
    """A manifest from what its file holds; raises InputError as `read_manifest` does."""
    try:
        version = json.loads(content).get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError("E-DATASET-05", where=where, schema_version=SCHEMA_VERSION, version=version)
        return Manifest.model_validate_json(content)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, AttributeError) as error:
        raise InputError("E-DATASET-06", where=where) from error


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
