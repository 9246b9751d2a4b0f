"""Serves a registered model over HTTP: checks, starts Ray, serves, follows the alias, stops."""

import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from ray import serve as ray_serve
from ray.serve.api import RunTarget, run_many

from medgan.data.dicom.attributes import ModelFacts
from medgan.distributed.cluster import Capacity, cluster, is_given
from medgan.errors import InputError, JobError
from medgan.inference.saved_model import CARD, load_translator, read_manifest
from medgan.paths import Place
from medgan.registry.versions import fetched, reached, resolve
from medgan.server.alias_watcher import Served
from medgan.server.auth import token_digest
from medgan.server.deployment import Service, application
from medgan.server.upload import Limits
from medgan.workflows.events import EnginesStart, Note, Notify, ignore

STARTING_S = 300.0
LOOK_S = 2.0
NAME = "medgan"
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
SETTINGS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the follower asks again by itself, and must see a server that is back
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "RAY_SERVE_LOG_TO_STDERR": "0",
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
        JobError: Ray or the service did not come up, or it ended by itself.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    if is_given():
        raise InputError("E-SERVE-01", address=os.environ["RAY_ADDRESS"])
    with reached(place.tracking_uri):
        name, number = resolve(model, place.tracking_uri)
        load_served(number, "cpu", name=name, uri=place.tracking_uri)  # refused before anything starts
    _refuse_taken(host, port)
    token_file = token_file or place.output / "serve.token"
    service = Service(
        named=partial(version_now, model, place.tracking_uri),
        load=partial(load_served, name=name, uri=place.tracking_uri),
        limits=limits,
        digest=token_digest(token_file),
        scratch=place.output / "serving" / f"{socket.gethostname()}-{port}",
        log_file=place.log_file(f"serve-{port}"),
    )
    notify(Note(f"token: in {token_file}"))
    notify(EnginesStart(service.log_file))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, service.scratch, ignore_errors=True)
        try:
            notify(Note("starting Ray ..."))
            capacity, stop = stack.enter_context(cluster()), stack.enter_context(_stopped_by_signal())
            _run(service, capacity, host=host, port=port, notify=notify, stop=stop)
        except KeyboardInterrupt:  # before there was anything to stop
            pass
        notify(Note("\nstopping ..."))


def version_now(model: str, uri: str) -> str:
    """Returns the number of the version that a model URI names now."""
    return resolve(model, uri)[1]


def load_served(number: str, device: str, *, name: str, uri: str) -> Served:
    """Returns a registered version, ready to translate; raises InputError if there is none, or if it is damaged."""
    with fetched(f"models:/{name}/{number}", uri=uri) as (folder, _, _):
        manifest, card = read_manifest(folder), folder / CARD
        return Served(
            translator=load_translator(folder, device=device),
            facts=ModelFacts(name=name, version=number, digest=manifest.weights_sha256),
            manifest=manifest,
            card=card.read_text(encoding="utf-8") if card.is_file() else "",
        )


@contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """Yields an event that Ctrl-C and SIGTERM set: an exception inside Ray's code could end the process."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, former in zip(signals, before, strict=True):
            signal.signal(number, former)


def _refuse_taken(host: str, port: int) -> None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family):
            pass
    except (OSError, OverflowError) as error:
        raise InputError("E-SERVE-02", host=host, port=port, error=error) from None


def _run(service: Service, capacity: Capacity, *, host: str, port: int, notify: Notify, stop: threading.Event) -> None:
    """Starts the replicas and watches the service as those who use it see it."""
    options = {"host": host, "port": port, "request_timeout_s": 2 * service.limits.request_s}
    try:
        ray_serve.start(proxy_location="HeadOnly", http_options=options)
        run_many([RunTarget(application(service, capacity), name=NAME)], wait_for_applications_running=False)
        if _comes_up(stop):
            _watch(f"http://{_bracketed(ANYWHERE.get(host, host))}:{port}", notify, stop=stop)
    finally:
        ray_serve.shutdown()  # waits 30 s at most; Ray must not end before it does


def _comes_up(stop: threading.Event) -> bool:
    """Waits until the replicas have the model; returns False if it is stopped before."""
    end = time.monotonic() + STARTING_S
    while (state := ray_serve.status().applications[NAME]).status != "RUNNING":
        if state.status == "DEPLOY_FAILED" or time.monotonic() > end:
            raise JobError("E-SERVE-03", starting_s=STARTING_S, state=state.status)
        if stop.wait(0.2):
            return False
    return True


def _watch(address: str, notify: Notify, *, stop: threading.Event) -> None:
    """Reports each change of version or health until it is stopped."""
    reported, answered = "", time.monotonic()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while not stop.is_set():
        try:
            with direct.open(f"{address}/health", timeout=LOOK_S) as response:
                state, answered = json.load(response), time.monotonic()
            said = f"{state['model']} version {state['version']} at {address}" + f": {state['problem']}".rstrip(": ")
        except OSError:
            said = "the service does not answer; it is being restarted or has much to do"
            if time.monotonic() - answered > STARTING_S:
                raise JobError("E-SERVE-04", address=address, starting_s=STARTING_S) from None
        if said != reported:
            notify(Note(f"{time.strftime('%H:%M:%S')} {said}"))
            reported = said
        stop.wait(LOOK_S)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
