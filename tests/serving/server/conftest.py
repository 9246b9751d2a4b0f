"""Runs the HTTP interface of a small model on a real port, with a client."""

import hashlib
import io
import socket
import threading
import time
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from medgan.data.dicom.attributes import ModelFacts
from medgan.inference.saved_model import load_translator, read_manifest
from medgan.inference.translator import translate_placed
from medgan.server.alias_watcher import Follower, Served
from medgan.server.app import build_app
from medgan.server.listener import listening
from medgan.server.request_queue import RequestQueue
from medgan.server.upload import Limits

LIMIT_S = 30
TOKEN = "a-token-of-the-tests-alone"


@pytest.fixture
def affine():
    return np.array([[4.0, 0, 0, -30.5], [0, 5.0, 0, -40.25], [0, 0, 3.27, -881.3], [0, 0, 0, 1]])


class Client:
    """Sends requests to a server."""

    def __init__(self, address, scratch, follower):
        self.address, self.scratch, self.follower = address, scratch, follower
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    def get(self, path, **options):
        return requests.get(self.address + path, timeout=LIMIT_S, **{"headers": self.headers, **options})

    def post(self, body=None, content_type="application/zip", **options):
        headers = {**self.headers, **({"Content-Type": content_type} if content_type else {})}
        return requests.post(self.address + "/translate", body, headers=headers, timeout=LIMIT_S, **options)

    @contextmanager
    def connected(self, body, length=None):
        """Sends a body with this Content-Length, and reads nothing; the client disconnects at the end."""
        host, port = self.address.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the system keeps little of an answer
            connection.settimeout(LIMIT_S)
            connection.connect((host, int(port)))
            head = (
                f"POST /translate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Type: application/zip\r\nContent-Length: {length or len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            yield

    def has_begun(self, num_requests):
        """Waits until so many requests are in progress."""
        end = time.monotonic() + LIMIT_S
        while len(list(self.scratch.iterdir())) < num_requests and time.monotonic() < end:
            time.sleep(0.02)

    def left_behind(self):
        """Returns the content of the scratch folder once no request is in progress."""
        end = time.monotonic() + LIMIT_S
        while (left := list(self.scratch.iterdir())) and time.monotonic() < end:
            time.sleep(0.02)
        return left


class NetworkHere:
    """Stands for a network in a child process; it runs in this one, one volume at a time."""

    def __init__(self, translator):
        self.translator, self.lost = translator, ""
        self._turn = threading.Lock()

    def translate(self, placed, go_on):
        def progress(done, total):
            go_on()

        while not self._turn.acquire(timeout=0.05):
            go_on()
        try:
            return translate_placed(self.translator, placed, progress=progress)
        finally:
            self._turn.release()

    def problem(self):
        return self.lost

    def close(self):
        pass


@pytest.fixture
def served(model_folder):
    manifest = read_manifest(model_folder)
    facts = ModelFacts(name="medgan-pet2ct", version="7", digest=manifest.weights_sha256)
    translator = load_translator(model_folder)
    return Served(NetworkHere(translator), translator.input, facts, manifest, card="# A model")


@pytest.fixture
def start(served, tmp_path):
    """Returns a function of limits and network that starts a server; at the end its folder must be empty."""
    running = []

    def begin(limits=None, network=None):
        translator = replace(served.network.translator, network=network or served.network.translator.network)
        follower = Follower(lambda: "7", lambda _: replace(served, network=NetworkHere(translator)), look_s=1000)
        scratch = tmp_path / f"scratch-{len(running)}"
        scratch.mkdir()
        stack = ExitStack()
        queue = RequestQueue(follower, limits or Limits(), scratch)
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        app = build_app(follower, queue, limits=queue.limits, digest=digest)
        stack.enter_context(listening(app, sock))
        client = Client(f"http://127.0.0.1:{sock.getsockname()[1]}", scratch, follower)
        running.append((stack, queue, follower, client))
        return client

    yield begin
    for stack, queue, follower, client in running:
        left = client.left_behind()
        stack.close()
        queue.close()
        follower.close()
        assert left == []


@pytest.fixture(scope="session")
def zip_of():
    """Returns a function of a folder: its DICOM files as the body of a request."""

    def made(folder: Path) -> bytes:
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*.dcm")):
                archive.write(path, path.relative_to(folder))
        return body.getvalue()

    return made


@pytest.fixture(scope="session")
def files_of():
    """Returns a function of a folder: its DICOM files as a form."""

    def made(folder: Path):
        return [("f", (path.name, path.read_bytes())) for path in sorted(folder.rglob("*.dcm"))]

    return made


@pytest.fixture(scope="session")
def unzipped():
    """Returns a function of a response: its DICOM files."""

    def made(response):
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            assert archive.testzip() is None
            return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in sorted(archive.namelist())]

    return made
