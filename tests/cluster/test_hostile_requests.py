"""A running `medgan serve` under hostile uploads: each is refused alone, and the others are served.

MEDGAN_MUTATIONS (60,40) is the number of changed frames, and of changed files, that are sent.
"""

import io
import os
import random
import re
import signal
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile_dicom as hostile
import numpy as np
import pytest
import requests
from open_ports import is_loopback, listening_addresses
from running_server import LIMIT_S, Server, register_versions, zipped

from medgan.config import Config, with_values
from medgan.data.phantoms.phantom_patients import write_phantoms

NUM_FRAMES, NUM_FILES = (int(number) for number in os.environ.get("MEDGAN_MUTATIONS", "60,40").split(","))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + NUM_FRAMES + NUM_FILES)]
NOTICED_S = 10.0
REPLACED_S = 60.0
GOOD_S = 5.0
EVERY_S = 0.5  # between two good requests
KEPT_MB = 200
SLICE = 3
"""The slice of the series that is changed."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "home"


@pytest.fixture(scope="module")
def server(command, home):
    register_versions(home, with_values(Config(), {"data.size": 32, "generator.base_channels": 4}), 1)
    return Server(command, home)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("pet"), patients=1, slices=12, matrix=64) / "PHANTOM-0001" / "PT"


@pytest.fixture(scope="module")
def good(series):
    return zipped(series)


@pytest.fixture(scope="module")
def frames(series, tmp_path_factory):
    """Syntax -> the compressed frame of one slice."""
    found = {}
    for name, syntax in hostile.SYNTAXES.items():
        path = tmp_path_factory.mktemp(name) / "one.dcm"
        path.write_bytes(sorted(series.iterdir())[SLICE].read_bytes())
        hostile.recode(path, syntax)
        found[name] = hostile.frame_of(path)
    return found


def with_slice(series: Path, content: bytes) -> bytes:
    """The series as the body of a request, one of its files replaced."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, path in enumerate(sorted(series.iterdir())):
            archive.writestr(path.name, content if number == SLICE else path.read_bytes())
    return packed.getvalue()


def with_frame(series: Path, frame: bytes, syntax: str, tmp_path: Path) -> bytes:
    path = tmp_path / f"{threading.get_ident()}.dcm"
    path.write_bytes(sorted(series.iterdir())[SLICE].read_bytes())
    hostile.put_frame(path, frame, syntax)
    return with_slice(series, path.read_bytes())


def memory_mb(processes):
    total = 0
    for process in processes:
        try:
            status = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(status.split("Pss:")[1].split()[0]) >> 10
    return total


def test_only_loopback_is_listened_on(server, home, processes_of):
    ours = listening_addresses(one.pid for one in processes_of(home))
    assert ours and all(is_loopback(address) for address, _ in ours), ours
    assert {port for _, port in ours} == {int(server.address.rsplit(":", 1)[1])}


def test_files_of_the_service_are_for_their_owner_only(server, home, good):
    assert server.translate(good).status_code == 200
    for path in (home / "serve.token", *home.rglob("*.log"), home / "serving"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("path", hostile.CRASHES, ids=lambda path: path.stem)
def test_frame_that_crashes_its_reader_is_refused_alone(server, series, good, tmp_path, path):
    body = with_frame(series, path.read_bytes(), path.stem.split("_")[1], tmp_path)
    with ThreadPoolExecutor(1) as others:
        other = others.submit(server.translate, good)
        answer = server.translate(body)
        assert other.result().status_code == 200
    assert answer.status_code == 422 and answer.json()["code"] == "E-UPLOAD-01", answer.text
    assert server.health()["status"] == "serving"


def test_changed_frames_and_files_are_refused_or_served_and_hold_nobody_up(
    server, home, series, good, frames, tmp_path, processes_of
):
    chance, answers, good_s = random.Random(0), Counter(), []
    whole = sorted(series.iterdir())[SLICE].read_bytes()
    changes = [("frame", name) for name in chance.choices(sorted(frames), k=NUM_FRAMES)] + [("file", "")] * NUM_FILES
    seeds = [(kind, name, chance.random()) for kind, name in changes]

    def send(change):
        kind, name, seed = change
        own = random.Random(seed)
        if kind == "frame":
            body = with_frame(series, hostile.mutated(frames[name], own), name, tmp_path)
        else:
            body = with_slice(series, hostile.mutated(whole, own))
        answer = server.translate(body)
        assert answer.status_code in (200, 422), f"{change}: {answer.text}"
        assert str(tmp_path) not in answer.text and str(home) not in answer.text
        answers[kind, answer.status_code] += 1

    def ask(enough):
        while not enough.wait(EVERY_S):
            began = time.monotonic()
            assert server.translate(good).status_code == 200
            good_s.append(time.monotonic() - began)

    assert server.translate(good).status_code == 200
    before, enough = memory_mb(processes_of(home)), threading.Event()
    with ThreadPoolExecutor(1) as others, ThreadPoolExecutor(2) as senders:
        asking = others.submit(ask, enough)
        try:
            list(senders.map(send, seeds))
        finally:
            enough.set()
        asking.result()
    after = memory_mb(processes_of(home))
    slowest = float(np.quantile(good_s, 0.99))
    print(f"{dict(answers)}; {len(good_s)} good, p99 {slowest:.2f} s; memory {before} -> {after} MB")
    assert slowest < GOOD_S and after - before < KEPT_MB


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stuck", "dead"])
def test_lost_network_is_told_by_health_and_replaced(server, home, good, number):
    (log,) = (home / "logs").iterdir()
    os.kill(int(re.findall(r"the network on cpu runs in process (\d+)", log.read_text())[-1]), number)
    began = time.monotonic()
    while (health := requests.get(f"{server.address}/health", timeout=LIMIT_S)).status_code == 200:
        assert time.monotonic() - began < NOTICED_S
        time.sleep(0.05)
    assert health.json()["status"] == "restarting" and health.headers["Retry-After"]
    refused = server.translate(good)
    assert refused.status_code in (200, 503)
    if refused.status_code == 503:
        assert refused.headers["Retry-After"] and refused.json()["code"] == "E-SERVER-06"
    while server.health()["status"] != "serving":
        assert time.monotonic() - began < REPLACED_S
        time.sleep(0.2)
    assert server.translate(good).status_code == 200
