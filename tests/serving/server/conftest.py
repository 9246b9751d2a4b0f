"""Runs the HTTP interface of a small model on a real port, with a client."""

import hashlib
import io
import socket
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
import uvicorn

from medgan.data.dicom.attributes import ModelFacts
from medgan.inference.saved_model import load_translator, read_manifest
from medgan.server.alias_watcher import Follower, Served
from medgan.server.app import build_app
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
        """Sends a body with this Content-Length; the client disconnects at the end."""
        host, port = self.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
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


@pytest.fixture
def served(model_folder):
    manifest = read_manifest(model_folder)
    facts = ModelFacts(name="medgan-pet2ct", version="7", digest=manifest.weights_sha256)
    return Served(translator=load_translator(model_folder), facts=facts, manifest=manifest, card="# A model")


@pytest.fixture
def start(served, tmp_path):
    """Returns a function of limits and network that starts a server; at the end its folder must be empty."""
    running = []

    def begin(limits=None, network=None):
        translator = replace(served.translator, network=network or served.translator.network)
        follower = Follower(lambda: "7", lambda _: replace(served, translator=translator), look_s=1000)
        scratch = tmp_path / f"scratch-{len(running)}"
        scratch.mkdir()
        listening = socket.create_server(("127.0.0.1", 0))
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        app = build_app(follower, limits=limits or Limits(), digest=digest, scratch=scratch)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", scratch, follower)
        running.append((server, thread, follower, client))
        return client

    yield begin
    for server, thread, follower, client in running:
        left = client.left_behind()
        server.should_exit = True
        thread.join(LIMIT_S)
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
