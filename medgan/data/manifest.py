"""Reads and writes `dataset.json`, which describes a prepared data set in a form that a person can read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from medgan.data.atomic_write import write_atomically
from medgan.data.prepare.split import ROLES
from medgan.errors import InputError
from medgan.tasks import Task

SCHEMA_VERSION = 2
FILE_NAME = "dataset.json"
FIRST_MASK_RULE = "threshold, holes filled, largest part"
STATES = "states"
"""This folder holds the manifest of every state of a data set, by digest: a state stays when patients are added."""


class IntensityScale(BaseModel):
    """Converts stored int16 to the physical unit: value = stored * slope + intercept."""

    model_config = ConfigDict(frozen=True)
    slope: float
    intercept: float

    def physical(self, stored: np.ndarray) -> np.ndarray:
        """Returns the values in the image's unit, float32 of the same shape."""
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


class Patient(BaseModel):
    """Describes one patient of a prepared data set.

    Attributes:
        hash_without_issuer: hash of the Patient ID alone where it has an issuer; earlier data sets know no other.
        folder: folder of the patient's arrays, relative to that of the data set.
        slices: number of slices kept; `slice_numbers` are their positions in the target series, from 0.
        dropped: number of slices left out because they show nothing of the source.
        source, target: scales that convert the stored numbers to values.
        source_window, target_window: (low, high) in their units, which become -1 and 1.
        affine: affine of the whole grid, whose first slice is the target's first, in mm; see `Volume.affine`.
        overlap: Dice coefficient of the bodies in source and target, between 0 and 1.
        mutual_information: normalized, of source and target (Studholme et al., 1999), between 1 and 2.
        sha256: name of each array's file -> SHA-256 of the file.
        notes: choices that a person should know about.
        drawn: values drawn at random for a simulated source, without the noise.
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
    hash_without_issuer: str = ""


class Manifest(BaseModel):
    """Describes a prepared data set.

    Attributes:
        axis: plane of the slices: "axial", "coronal", "sagittal", or "any" where each target has its own.
        mask_rule: how the body was told from air and couch; metrics of two rules cannot be compared.
        simulation: settings of the simulation of the sources; empty if they were not simulated.
        set_aside: patients that were not used, by hash, and why.
        passed_over: files that were not used: reason -> how many.
        key_id: identifies the key of the patients' hashes; see `medgan.data.prepare.split.key_id`.
        inputs: keyed digest of plan and input files, which shows whether anything is new.
        digest: identifies the content, independent of where and when it was made.
    """

    model_config = ConfigDict(frozen=True)
    schema_version: int
    medgan: str
    task: Task
    spacing_mm: float
    size: int
    phantom: bool
    axis: str = "any"
    mask_rule: str = FIRST_MASK_RULE
    simulation: dict[str, float]
    patients: list[Patient]
    set_aside: list[str]
    passed_over: dict[str, int]
    key_id: str = ""
    inputs: str
    digest: str = ""

    @property
    def notes(self) -> list[str]:
        """Returns what a person should know: which patients were set aside, and which choices were made."""
        return [*self.set_aside, *(f"patient {one.hash}: {note}" for one in self.patients for note in one.notes)]

    def hashes(self, role: str) -> tuple[str, ...]:
        """Returns the hashes of the patients of a role, sorted."""
        return tuple(sorted(one.hash for one in self.patients if one.role == role))

    def hashes_without_issuer(self, role: str) -> tuple[str, ...]:
        """Returns the hashes of the Patient IDs alone, of those patients of a role whose ID has an issuer, sorted."""
        known = {one.hash_without_issuer for one in self.patients if one.role == role}
        return tuple(sorted(known - {""}))

    @property
    def split_digest(self) -> str:
        """Returns the SHA-256 over the roles of the patients, which does not depend on their images."""
        roles = "\n".join(sorted(f"{one.hash} {one.role}" for one in self.patients))
        return hashlib.sha256(roles.encode()).hexdigest()


def sealed(manifest: Manifest) -> Manifest:
    """Returns the manifest with its digest: SHA-256 over task, settings, roles and the arrays' own digests.

    What earlier manifests do not have counts only where it differs from what they mean, so that their digests stay.
    """
    left_out = {"digest", "medgan", "set_aside", "passed_over", "key_id", "inputs"}
    content = manifest.model_dump(mode="json", exclude=left_out)
    _drop_earlier(content, {"axis": "any", "mask_rule": FIRST_MASK_RULE})
    for patient in content["patients"]:
        _drop_earlier(patient, {"hash_without_issuer": ""})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return manifest.model_copy(update={"digest": hashlib.sha256(canonical.encode()).hexdigest()})


def _drop_earlier(content: dict[str, Any], meant: Mapping[str, str]) -> None:
    """Removes fields whose value is what a manifest without them means."""
    for name, value in meant.items():
        if content[name] == value:
            del content[name]


def store_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest as a state of its own, and as the newest."""
    (folder / STATES).mkdir(exist_ok=True)
    content = manifest.model_dump_json(indent=1).encode()
    write_atomically(folder / STATES / f"{manifest.digest}.json", content)
    write_atomically(folder / FILE_NAME, content)


def read_manifest(folder: Path) -> Manifest:
    """Returns the manifest of a prepared data set: its newest state, or one state by its file in `states`.

    Raises:
        InputError: there is none, it has another schema version, or it is damaged.
    """
    path = folder if folder.suffix == ".json" else folder / FILE_NAME
    if not path.is_file():
        raise InputError("E-DATASET-04", parent=path.parent, path_name=path.name)
    return parsed_manifest(path.read_bytes(), str(path))


def parsed_manifest(content: bytes, where: str) -> Manifest:
    """Returns the manifest in the content of its file; raises InputError as `read_manifest` does."""
    try:
        version = json.loads(content).get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError("E-DATASET-05", where=where, schema_version=SCHEMA_VERSION, version=version)
        return Manifest.model_validate_json(content)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, AttributeError) as error:
        raise InputError("E-DATASET-06", where=where) from error


def described(manifest: Manifest) -> str:
    """Describes a data set in one line: patients and slices of each role, the grid, the dropped slices."""
    roles = []
    for role in ROLES:
        counts = [patient.slices for patient in manifest.patients if patient.role == role]
        roles.append(f"{len(counts)} {role} patient{'s' * (len(counts) != 1)} ({sum(counts)} slices)")
    dropped = sum(patient.dropped for patient in manifest.patients)
    kind = "phantoms: " if manifest.phantom else ""
    rest = f"; {dropped} slices that show no {manifest.task.source.modality} left out" if dropped else ""
    return f"{kind}{', '.join(roles)}, {manifest.size} px of {manifest.spacing_mm:g} mm{rest}"
