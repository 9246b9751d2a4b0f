"""Hashes patient IDs with a key, and assigns each patient a permanent role: train, validation or test."""

import hashlib
import hmac
import json
import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from medgan.data.atomic_write import write_atomically
from medgan.errors import InputError

ROLES = ("train", "validation", "test")
KEY_FILE = ".key"
LEAST_TO_SPLIT = len(ROLES)


def patient_hash(patient_id: str, key: bytes) -> str:
    """Returns the first 12 hex digits of HMAC-SHA256: without the key, nobody can try out patient IDs."""
    return hmac.new(key, patient_id.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:12]


def key_id(key: bytes) -> str:
    """Returns 12 hex digits that only tell one key from another: hashes made with two keys cannot be compared."""
    return hashlib.sha256(b"medgan key" + key).hexdigest()[:12]


def load_key(datasets: Path) -> bytes:
    """Returns the key of an output folder, drawn in the first call and stored in `.key` (mode 600).

    Only one process may draw the key: hold the folder's lock, as `prepare` does, unless the key exists.
    """
    path = datasets / KEY_FILE
    if not has_key(datasets):
        write_atomically(path, secrets.token_bytes(32))
    return path.read_bytes()


def has_key(datasets: Path) -> bool:
    """Returns whether an output folder has a key."""
    return (datasets / KEY_FILE).exists()


def load_roles(datasets: Path) -> dict[str, dict[str, str]]:
    """Returns the roles drawn so far in an output folder: task -> patient hash -> role."""
    path = datasets / "roles.json"
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise InputError("E-SPLIT-01", path=path) from None


def store_roles(datasets: Path, roles: dict[str, dict[str, str]]) -> None:
    """Writes the roles to `roles.json`."""
    write_atomically(datasets / "roles.json", json.dumps(roles, indent=1, sort_keys=True).encode())


def assign_roles(
    hashes: Iterable[str], known: dict[str, str], *, validation_share: float = 1 / 6, test_share: float = 1 / 3
) -> dict[str, str]:
    """Returns a role for every patient: at least one validation, at least one test, and the rest train.

    One or two patients cannot be split: they all become test patients, on whom a model can be evaluated.

    Known roles never change. New patients come in the order of their hashes, which the key makes random, and each
    takes the role that lacks most patients.

    Args:
        known: roles drawn before, for these and perhaps other patients.

    Raises:
        InputError: the roles drawn before leave a role without patients.
    """
    patients = sorted(set(hashes))
    num = len(patients)
    if num < LEAST_TO_SPLIT:
        return {patient: known.get(patient, "test") for patient in patients}
    wanted = {"validation": max(1, round(num * validation_share)), "test": max(1, round(num * test_share))}
    wanted["train"] = num - sum(wanted.values())
    roles = {patient: known[patient] for patient in patients if patient in known}
    for patient in patients:
        if patient not in roles:
            have = Counter(roles.values())
            roles[patient] = max(ROLES, key=lambda role: wanted[role] - have[role])
    empty = [role for role in ROLES if role not in roles.values()]
    if empty:
        raise InputError("E-SPLIT-02", empty=", ".join(empty), num=num)
    return roles
