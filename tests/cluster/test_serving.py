"""`medgan serve` as a person starts it: real Ray Serve, a real registry, an alias that moves under load."""

from __future__ import annotations

import io
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
import requests
import torch
from torch import nn

import medgan.inference
from medgan.config import Config, with_values
from medgan.data.dicom.attributes import ModelFacts
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.distributed.cluster import machine
from medgan.inference.dicom_folder import translate_folder
from medgan.inference.saved_model import ModelManifest, load_translator, save_model
from medgan.presets.by_name import configured
from medgan.registry.versions import point, register
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.training.build_networks import build_generator

NAME = "medgan-pet2ct-phantom"
CHAMPION = f"models:/{NAME}@champion"
NUM_VERSIONS = 3
NUM_REQUESTS, NUM_CHANGES, NUM_CLIENTS = 500, 5, 4
TAKEN_UP_S = 30
LIMIT_S = 60
ENDED_S = 20
SPEED_LIMIT_S = 150


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("serving") / "home"


def register_versions(home: Path, config: Config, num_versions: int) -> str:
    """A registry in a new home, with versions of different weights, the first of them champion; its address."""
    home.mkdir()
    uri = f"sqlite:///{home / 'mlflow.db'}"
    study = MlflowStudy(uri, "medgan/pet2ct-phantom", artifacts=home / "artifacts", study="s", key="k")
    for number in range(1, num_versions + 1):
        manifest = ModelManifest(
            name=NAME,
            task="pet2ct",
            config=config.model_dump(mode="json"),
            spacing_mm=320 / config.data.size,
            size=config.data.size,
            source_window=(0.0, 10.0),
            target_window=(-1000.0, 2000.0),
            data_digest="d" * 64,
        )
        folder = home.parent / "models" / str(number)
        weights = {key: number * value for key, value in build_generator(config).state_dict().items()}
        save_model(folder, generator_state=weights, manifest=manifest)
        register(
            folder,
            name=NAME,
            run_id=study.trial(number).run_id,
            uri=uri,
            code=Path(medgan.inference.__file__).parent / "pyfunc.py",
            tags={},
            description="for research only",
        )
    point(NAME, "champion", "1", uri=uri)
    return uri


@pytest.fixture(scope="module")
def uri(home) -> str:
    """A registry whose last version is damaged."""
    small = with_values(Config(), {"data.size": 32, "generator.base_channels": 4})
    uri = register_versions(home, small, NUM_VERSIONS + 1)
    *_, last = sorted((home / "artifacts").rglob("generator.safetensors"), key=lambda path: path.stat().st_mtime)
    last.write_bytes(last.read_bytes()[:-1] + b"\0")
    return uri


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """The PET of a phantom: a few small slices."""
    return write_phantoms(tmp_path_factory.mktemp("pet"), patients=1, slices=3, matrix=32) / "PHANTOM-0001" / "PT"


@pytest.fixture(scope="module")
def body(series) -> bytes:
    return zipped(series)


def zipped(series: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(series.iterdir()):
            archive.write(path, path.name)
    return packed.getvalue()


class Server:
    """A running `medgan serve`."""

    def __init__(self, command, home):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.job = command(home, "-m", "medgan.cli.main", "serve", "--model", CHAMPION, "--port", str(port))
        self.job.until(f"{NAME} version 1 at {self.address}")
        self.headers = {"Authorization": f"Bearer {(home / 'serve.token').read_text().strip()}"}

    def health(self):
        return requests.get(f"{self.address}/health", timeout=LIMIT_S).json()

    def translate(self, body, limit_s=LIMIT_S):
        headers = {**self.headers, "Content-Type": "application/zip"}
        return requests.post(f"{self.address}/translate", body, headers=headers, timeout=limit_s)

    def until(self, **expected):
        """Waits until /health says so; the seconds that took."""
        began = time.monotonic()
        while not expected.items() <= self.health().items():
            assert time.monotonic() - began < TAKEN_UP_S, f"expected {expected}; got {self.health()}"
            time.sleep(0.2)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def server(command, home, uri) -> Server:
    return Server(command, home)


def voxels(files):
    return b"".join(file.PixelData for file in files)


def unzipped(response):
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in sorted(archive.namelist())]


@pytest.fixture(scope="module")
def expected(home, uri, series) -> dict[str, bytes]:
    """Version -> the voxels that `medgan translate` gives with it."""
    found = {}
    for number in map(str, range(1, NUM_VERSIONS + 1)):
        translator = load_translator(home.parent / "models" / number)
        out = home.parent / "translated" / number
        facts = ModelFacts(name=NAME, version=number, digest="")
        translate_folder(translator, series, out, facts=facts, progress=lambda _: None)
        found[number] = voxels([pydicom.dcmread(path) for path in sorted(out.iterdir())])
    assert len(set(found.values())) == NUM_VERSIONS, "the versions can be told apart"
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_server_loses_and_mixes_no_request_while_alias_moves(server, uri, body, expected):
    answers, enough = [], threading.Event()

    def ask():
        while not enough.is_set():
            answers.append(server.translate(body))

    clients = [threading.Thread(target=ask) for _ in range(NUM_CLIENTS)]
    for client in clients:
        client.start()
    try:
        taken_up_s = []
        for change in range(1, NUM_CHANGES + 1):
            while len(answers) < change * NUM_REQUESTS / (NUM_CHANGES + 1):
                assert all(client.is_alive() for client in clients), "a client failed"
                time.sleep(0.05)
            number = str(change % NUM_VERSIONS + 1)
            point(NAME, "champion", number, uri=uri)
            taken_up_s.append(server.until(version=number, problem=""))
        while len(answers) < NUM_REQUESTS:
            time.sleep(0.05)
    finally:
        enough.set()
        for client in clients:
            client.join(LIMIT_S)
    assert {answer.status_code for answer in answers} == {200} and len(answers) >= NUM_REQUESTS
    seen = set()
    for answer in answers:
        files, version = unzipped(answer), answer.headers["Medgan-Model-Version"]
        assert {str(file.SoftwareVersions[1]) for file in files} == {f"model {version}"}
        assert voxels(files) == expected[version]
        seen.add(version)
    assert seen == set(expected) and max(taken_up_s) < TAKEN_UP_S
    print(f"{len(answers)} answers; taken up after {', '.join(f'{one:.1f}' for one in taken_up_s)} s")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_server_keeps_old_version_when_champion_is_damaged(server, uri, body, expected):
    point(NAME, "champion", "1", uri=uri)
    server.until(version="1", problem="")
    point(NAME, "champion", str(NUM_VERSIONS + 1), uri=uri)
    server.until(version="1", problem="version 4 cannot be loaded; version 1 goes on being served")
    assert voxels(unzipped(server.translate(body))) == expected["1"]
    server.job.until("version 4 cannot be loaded")
    point(NAME, "champion", "1", uri=uri)
    server.until(version="1", problem="")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_server_stops_within_seconds_and_leaves_nothing(server, home, body, processes_of):
    assert server.translate(body).status_code == 200
    server.job.process.terminate()
    began = time.monotonic()
    assert server.job.end(LIMIT_S) == 0
    assert time.monotonic() - began < ENDED_S
    while (left := processes_of(home)) and time.monotonic() - began < ENDED_S:
        time.sleep(0.2)
    assert left == []
    assert list((home / "serving").iterdir()) == []
    (log,) = (home / "logs").iterdir()
    assert f"serving {NAME} version" in log.read_text() and "PHANTOM" not in log.read_text()
    token = (home / "serve.token").read_text().strip()
    assert token not in log.read_text() and token not in server.job.text


def bare_slices_per_s(network: nn.Module, size: int, seconds: float) -> float:
    """Of the network alone, 16 slices at a time, on as many threads as the service has."""
    batch = torch.zeros(16, 1, size, size)
    with torch.inference_mode():
        network(batch)
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            network(batch)
            done += len(batch)
    return done / (time.perf_counter() - began)


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(240)
def test_server_is_nearly_as_fast_as_bare_network(command, tmp_path):
    config = configured("medgan_1g", {"data.size": 256, "generator.base_channels": 64})
    register_versions(tmp_path / "home", config, 1)
    body = zipped(write_phantoms(tmp_path / "pet", patients=1, slices=17, matrix=128) / "PHANTOM-0001" / "PT")
    network, threads = load_translator(tmp_path / "models" / "1").network, torch.get_num_threads()
    server = Server(command, tmp_path / "home")
    torch.set_num_threads(machine().cpus)
    try:
        num_slices = len(unzipped(server.translate(body)))
        before = bare_slices_per_s(network, 256, 6.0)
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: server.translate(body, SPEED_LIMIT_S), range(8)))
        served = 8 * num_slices / (time.perf_counter() - began)
        after = bare_slices_per_s(network, 256, 6.0)
    finally:
        torch.set_num_threads(threads)
        server.job.process.terminate()
    assert {answer.status_code for answer in answers} == {200} and server.job.end(LIMIT_S) == 0
    slowest = max(answer.elapsed.total_seconds() for answer in answers)
    print(f"{before:.2f}, {after:.2f} slices/s bare; {served:.2f} served to 8 clients, the slowest in {slowest:.1f} s")
    assert served >= 0.8 * min(before, after)
