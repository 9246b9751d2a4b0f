"""Checks whether a data set was made of the present files and plan; all digests are keyed, so that no path leaks."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medgan.data.bids import sidecar_place
from medgan.data.manifest import FILE_NAME, SCHEMA_VERSION, read_manifest
from medgan.data.nifti import is_nifti
from medgan.data.prepare.pairing import Pair
from medgan.data.prepare.plan import Plan
from medgan.data.reader import files_below
from medgan.data.unpack import stored_in
from medgan.errors import InputError

RECORD = "patient.json"
RULES = 3
"""Raise it when the rules that choose images change: the same files and plan may then give another data set."""
SPLITTING = {"validation_share", "test_share", "most_broken"}
"""These fields of the plan change no patient's arrays."""


def files_state(source: Path, key: bytes) -> str:
    """Returns a digest of the relative path, size and time of change of every file below a folder."""
    return _state(key, sorted(files_below(source, Counter())), source)


def inputs_of(files: str, plan: Plan, key: bytes) -> str:
    """Returns a digest of all that decides a data set's content: the files' state, the plan, and the rules."""
    text = f"{SCHEMA_VERSION} {RULES} {plan.model_dump_json()} {files}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def state_of(one: Pair, plan: Plan, key: bytes, root: Path) -> str:
    """Returns 8 hex digits of a patient's files and of the plan for them; they are part of the folder's name."""
    files = [path for series in (one.source, one.target) if series for path in series.files]
    paths = [place for path in files for place in ((path, sidecar_place(path)) if is_nifti(path) else (path,))]
    text = f"{SCHEMA_VERSION} {RULES} {plan.model_dump_json(exclude=SPLITTING)} {_state(key, paths, root)}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:8]


def up_to_date(folder: Path, inputs: str) -> bool:
    """Returns whether the data set was made of these inputs, and all its files exist."""
    try:
        manifest = read_manifest(folder)
    except InputError:
        return False
    names = (folder / one.folder / name for one in manifest.patients for name in one.sha256)
    is_same = manifest.inputs == inputs and manifest.key_id != ""
    return is_same and (folder / FILE_NAME).exists() and all(path.exists() for path in names)


def record_of(folder: Path) -> dict[str, Any] | None:
    """Returns the content of `patient.json`, or None where it or an array is missing or damaged."""
    try:
        record = json.loads((folder / RECORD).read_text())
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in record["sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if digests == record["sha256"] else None


def _state(key: bytes, paths: Iterable[Path], root: Path) -> str:
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for path in paths:
        try:
            status = stored_in(path).stat()
        except OSError:
            continue  # deleted in the meantime
        place = str(path.relative_to(root)).encode("utf-8", "surrogateescape")
        digest.update(b"\0%b\0%d\0%d" % (place, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()
