"""Copies prepared data sets from and to a URL that fsspec knows, such as s3://bucket/set."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec
from fsspec import AbstractFileSystem

from medgan.data.atomic_write import write_atomically
from medgan.data.manifest import FILE_NAME, STATES, Manifest, Patient, parsed_manifest, read_manifest, store_manifest
from medgan.errors import InputError, JobError


def fetched(url: str, cache: Path) -> Path:
    """Returns the folder of a checked local copy of the newest state; fetches only arrays that it lacks.

    Args:
        cache: folder of the copies, each URL's in a folder of its own.

    Raises:
        InputError: the URL cannot be read, or holds no prepared data set.
        JobError: an array has another digest than the data set states.
    """
    folder = cache / hashlib.sha256(url.encode()).hexdigest()[:12]
    with _reachable(url) as (files, root):
        if not files.exists(f"{root}/{FILE_NAME}"):
            raise InputError("E-REMOTE-01", url=url, file_name=FILE_NAME)
        manifest = parsed_manifest(files.cat_file(f"{root}/{FILE_NAME}"), url)
        for patient in manifest.patients:
            _refuse_outside_path(url, patient)
            for name, digest in patient.sha256.items():
                path = folder / patient.folder / name
                if not path.exists():
                    _fetch(files, f"{root}/{patient.folder}/{name}", path, digest)
    store_manifest(folder, manifest)
    return folder


def publish(folder: Path, url: str) -> None:
    """Copies a prepared data set to a URL; `dataset.json` goes last, so that nobody sees half a data set.

    Raises:
        InputError: the URL cannot be written.
    """
    manifest = read_manifest(folder)
    with _reachable(url) as (files, root):
        for name in _files_of(manifest, folder):
            place, content = f"{root}/{name}", (folder / name).read_bytes()
            if name.startswith("patients/") and files.exists(place) and files.size(place) == len(content):
                continue  # a patient's files never change; one of another size was cut off
            files.pipe_file(place, content)


def _files_of(manifest: Manifest, folder: Path) -> Iterator[str]:
    for patient in manifest.patients:
        yield from (path.relative_to(folder).as_posix() for path in sorted((folder / patient.folder).iterdir()))
    yield from ("fingerprint.json", "plan.json", "report.html", f"{STATES}/{manifest.digest}.json", FILE_NAME)


def _fetch(files: AbstractFileSystem, source: str, path: Path, digest: str) -> None:
    content = files.cat_file(source)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise JobError("E-REMOTE-02", source=source, digest=digest, found=found)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def _refuse_outside_path(url: str, patient: Patient) -> None:
    places = [PurePosixPath(patient.folder), *map(PurePosixPath, patient.sha256)]
    if any(place.is_absolute() or ".." in place.parts for place in places):
        raise InputError("E-REMOTE-03", url=url)


@contextmanager
def _reachable(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Yields the file system behind a URL and the path in it; turns every failure there into an InputError."""
    try:
        yield fsspec.core.url_to_fs(url)
    except (InputError, JobError):
        raise
    except Exception as error:  # each of fsspec's file systems has exceptions of its own
        reason = str(error) or type(error).__name__
        raise InputError("E-REMOTE-04", url=url, reason=reason) from error
