"""Checks the bearer token of a server: only its owner can read its file; the server compares digests."""

import hashlib
import hmac
import secrets
import stat
from pathlib import Path

from medgan.data.atomic_write import write_atomically
from medgan.errors import InputError

SHORTEST = 20


def token_digest(file: Path) -> str:
    """Returns the sha256 of the token in a file; makes the file (mode 600) with a new token if it does not exist.

    Raises:
        InputError: others may read the file, or it holds no token of sufficient length.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, f"{secrets.token_urlsafe(32)}\n".encode())
    if not file.is_file():
        raise InputError("E-AUTH-01", file=file)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise InputError("E-AUTH-02", file=file, mode=mode)
    token = file.read_bytes().strip()
    if len(token) < SHORTEST or not token.isascii() or len(token.split()) != 1:
        raise InputError("E-AUTH-03", file=file, shortest=SHORTEST)
    return hashlib.sha256(token).hexdigest()


def is_authorized(header: str, digest: str) -> bool:
    """Says whether an Authorization header has the token of this digest; compares digests in constant time."""
    scheme, _, token = header.partition(" ")
    presented = hashlib.sha256(token.strip().encode()).hexdigest()
    return hmac.compare_digest(presented, digest) and scheme.lower() == "bearer"
