"""Compares a version's files with the digests that the registry keeps: what is served is what was registered."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from medgan.errors import InputError
from medgan.inference.saved_model import MANIFEST, WEIGHTS

WEIGHTS_TAG = "medgan.weights_sha256"
MANIFEST_TAG = "medgan.manifest_sha256"
FILES = {WEIGHTS_TAG: WEIGHTS, MANIFEST_TAG: MANIFEST}


def digests_of(folder: Path) -> dict[str, str]:
    """Returns the tags of a version: name -> SHA-256 digest of a file of the model."""
    return {tag: _digest(folder / file) for tag, file in FILES.items()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def check_digests(folder: Path, tags: Mapping[str, str], model: str) -> None:
    """Refuses a model whose files are not those that were registered; a version without such tags is older.

    Raises:
        InputError: weights or manifest have another digest than the registry says.
    """
    found = digests_of(folder)
    for tag, file in FILES.items():
        if tag in tags and tags[tag] != found[tag]:
            raise InputError("E-REGISTRY-08", model=model, file=file, expected=tags[tag], found=found[tag])
