"""Which code made a result: commit where there is one, else the package's own digest."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import medgan


def code_version() -> dict[str, str]:
    """`commit` and where it was taken from: git, the variable MEDGAN_COMMIT, or the package's files."""
    package = Path(medgan.__file__).parent
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")  # not some other repository around it
    if tracked and (commit := _git(package, "rev-parse", "HEAD")):
        dirty = _git(package, "status", "--porcelain", "--", str(package))
        return {"commit": commit + ("-dirty" if dirty else ""), "commit_source": "git"}
    if commit := os.environ.get("MEDGAN_COMMIT", ""):
        return {"commit": commit, "commit_source": "MEDGAN_COMMIT"}
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return {"commit": digest.hexdigest(), "commit_source": "package digest"}


def _git(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
