"""`medgan serve` as a person starts it: a real registry, an alias that moves under load."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
import torch
from running_server import LIMIT_S, NAME, TAKEN_UP_S, Server, register_versions, unzipped, voxels, zipped
from torch import nn

from medgan.config import Config, with_values
from medgan.data.dicom.attributes import ModelFacts
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.distributed.resources import machine
from medgan.inference.dicom_folder import translate_folder
from medgan.inference.saved_model import load_translator
from medgan.presets.by_name import configured
from medgan.registry.versions import point

NUM_VERSIONS = 3
NUM_REQUESTS, NUM_CHANGES, NUM_CLIENTS = 500, 5, 4
ENDED_S = 20
SPEED_LIMIT_S = 150


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("serving") / "home"


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


@pytest.fixture(scope="module")
def server(command, home, uri) -> Server:
    return Server(command, home)


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
