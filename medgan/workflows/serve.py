"""Serves a registered model over HTTP: checks, serves, follows the alias, stops."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from medgan.data.atomic_write import appearing, writing
from medgan.data.dicom.attributes import ModelFacts
from medgan.distributed.resources import machine
from medgan.errors import InputError, JobError
from medgan.inference.saved_model import CARD, network_input, read_manifest
from medgan.paths import Place
from medgan.processes.crew import get_ready
from medgan.registry.versions import fetched, reached, resolve
from medgan.server import translate_upload
from medgan.server.alias_watcher import Follower, Served
from medgan.server.auth import token_digest
from medgan.server.network import ChildNetwork
from medgan.server.service import Service, running
from medgan.server.upload import Limits
from medgan.workflows.events import EnginesStart, Note, Notify, ignore

LOOK_S = 1.0
SETTINGS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the follower asks again by itself, and must see a server that is back
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def serve(
    model: str,
    place: Place,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    notify: Notify = ignore,
) -> None:
    """Serves a model until it is stopped by a signal.

    Args:
        model: `models:/NAME@ALIAS`, which is followed, or `models:/NAME/VERSION`.
        place: where the registry is, and where token, log and temporary files go.
        token_file: file with the bearer token; None: in the output folder, made if need be.

    Raises:
        InputError: no such model, or one that cannot be loaded; no such address; a token file others may read.
        JobError: the service did not come up, or it ended by itself.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    get_ready(translate_upload.__name__)
    with reached(place.tracking_uri):
        name, number = resolve(model, place.tracking_uri)
        with fetched(f"models:/{name}/{number}", uri=place.tracking_uri) as (folder, _, _):
            read_manifest(folder)  # refused before anything starts
    with _bound(host, port) as sock:
        service = Service(
            named=partial(version_now, model, place.tracking_uri),
            load=partial(load_served, name=name, uri=place.tracking_uri),
            limits=limits,
            digest=token_digest(token_file := token_file or place.output / "serve.token"),
            scratch=place.output / "serving" / f"{socket.gethostname()}-{port}",
            log_file=place.log_file(f"serve-{port}"),
            num_devices=len(_devices()),
        )
        notify(Note(f"token: in {token_file}"))
        notify(EnginesStart(service.log_file))
        with running(service, sock) as (follower, listener), _stopped_by_signal() as stop:
            _watch(follower, listener, f"http://{_bracketed(host)}:{port}", notify, stop=stop)
            notify(Note("\nstopping ..."))


def version_now(model: str, uri: str) -> str:
    """Returns the number of the version that a model URI names now."""
    with reached(uri):
        return resolve(model, uri)[1]


def load_served(number: str, kept: Path, *, name: str, uri: str) -> Served:
    """Returns a registered version, ready to translate; raises InputError if there is none, or if it is damaged.

    Args:
        kept: folder to make for the model's files, for as long as its network runs.
    """
    model = f"models:/{name}/{number}"
    with reached(uri), fetched(model, uri=uri) as (folder, _, _), writing(kept), appearing(kept) as partial:
        for path in folder.iterdir():
            shutil.copyfile(path, partial / path.name)
    try:
        manifest, card, devices = read_manifest(kept), kept / CARD, _devices()
        wanted = network_input(manifest)
        threads = max(1, machine().cpus // len(devices))
        return Served(
            input=wanted,
            facts=ModelFacts(name=name, version=number, digest=manifest.weights_sha256),
            manifest=manifest,
            card=card.read_text(encoding="utf-8") if card.is_file() else "",
            network=ChildNetwork(kept, devices, threads=threads, unit=wanted.task.target.unit),
        )
    except BaseException:
        shutil.rmtree(kept, ignore_errors=True)
        raise


def _devices() -> list[str]:
    """Returns the devices on which a network runs: every GPU, or the CPU."""
    return [f"cuda:{number}" for number in range(machine().gpus)] or ["cpu"]


@contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """Yields an event that Ctrl-C and SIGTERM set, so that the service ends in its own time."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, former in zip(signals, before, strict=True):
            signal.signal(number, former)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yields a socket that listens at the address, so that no other service starts there; nobody answers yet."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen()
    except (OSError, OverflowError) as error:
        raise InputError("E-SERVE-02", host=host, port=port, error=error) from None
    with sock:
        yield sock


def _watch(
    follower: Follower, listener: threading.Thread, address: str, notify: Notify, *, stop: threading.Event
) -> None:
    """Reports each change of version or health until it is stopped."""
    reported = ""
    while not stop.is_set():
        if not listener.is_alive():
            raise JobError("E-SERVE-04")
        facts = follower.current.facts
        problem = follower.current.network.problem() or follower.problem
        said = f"{facts.name} version {facts.version} at {address}" + f": {problem}".rstrip(": ")
        if said != reported:
            notify(Note(f"{time.strftime('%H:%M:%S')} {said}"))
            reported = said
        stop.wait(LOOK_S)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
