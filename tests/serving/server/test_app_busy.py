"""The HTTP interface keeps to its limits, and survives lost clients, defects and a change of version."""

import io
import os
import signal
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from medgan.errors import messages
from medgan.server.upload import Limits

LIMIT_S = 30
pytestmark = pytest.mark.timeout(120)


class Gated(nn.Module):
    """Stands for a network that waits for its gate, within a time limit."""

    divisor = 8

    def __init__(self):
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def forward(self, source):
        self.entered.set()
        assert self.gate.wait(LIMIT_S)
        return source


@pytest.fixture
def gated(start):
    """Returns a function of limits: starts a server whose network waits."""

    def begin(limits):
        network = Gated()
        client = start(limits, network)
        network.gate.clear()
        network.entered.clear()
        return client, network

    return begin


def test_server_refuses_requests_above_limit_and_health_still_answers(gated, pet_folder, zip_of):
    client, network = gated(Limits(requests=2))
    body, answers = zip_of(pet_folder), []
    threads = [threading.Thread(target=lambda: answers.append(client.post(body).status_code)) for _ in range(2)]
    for thread in threads:
        thread.start()
    client.has_begun(2)
    refused = client.post(body)
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "10"
    detail = messages()["E-SERVER-02"].format(requests=2, again_s=10)
    assert refused.json() == {"detail": detail, "code": "E-SERVER-02"}
    assert client.get("/health").status_code == 200
    network.gate.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert answers == [200, 200] and client.left_behind() == []
    assert client.post(body).status_code == 200


def test_server_ends_request_above_time_limit_and_serves_next(gated, pet_folder, zip_of):
    limits = Limits(request_s=2, requests=1)
    client, network = gated(limits)
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 504
    assert response.json() == {"detail": messages()["E-SERVER-03"].format(request_s=2), "code": "E-SERVER-03"}
    network.gate.set()
    assert client.left_behind() == []
    object.__setattr__(limits, "request_s", float(LIMIT_S))  # the next one must not fail for a slow machine
    assert client.post(zip_of(pet_folder)).status_code == 200


def test_disconnected_client_leaves_no_files(gated, pet_folder, zip_of):
    client, network = gated(Limits(requests=1))
    with client.connected(zip_of(pet_folder)):
        assert network.entered.wait(LIMIT_S)
    network.gate.set()
    assert client.left_behind() == [] and client.post(zip_of(pet_folder)).status_code == 200


def test_incomplete_body_leaves_no_files(start, pet_folder, zip_of):
    client = start(Limits(requests=1))
    with client.connected(b"PK", length=9999):
        client.has_begun(1)
    assert client.left_behind() == [] and client.post(zip_of(pet_folder)).status_code == 200


class Failing(nn.Module):
    divisor = 8
    fails = False

    def forward(self, source):
        if self.fails:
            raise RuntimeError("the slice of Grün^Eva is wrong")
        return source


def test_defect_fails_one_request_and_is_reported_by_type_only(start, pet_folder, caplog, zip_of):
    network = Failing()
    client = start(network=network)
    network.fails = True
    response = client.post(zip_of(pet_folder))
    assert response.status_code == 500
    detail = messages()["E-SERVER-05"].format(name="RuntimeError")
    assert response.json() == {"detail": detail, "code": "E-SERVER-05"}
    assert "a request failed: RuntimeError at test_app_busy.py" in caplog.text and "Eva" not in caplog.text
    network.fails = False
    assert client.post(zip_of(pet_folder)).status_code == 200


def test_request_is_served_to_its_end_by_same_version(gated, served, pet_folder, zip_of, unzipped):
    client, network = gated(Limits())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.post(zip_of(pet_folder))))
    thread.start()
    assert network.entered.wait(LIMIT_S)
    client.follower.current = replace(served, facts=replace(served.facts, version="8"))
    network.gate.set()
    thread.join(LIMIT_S)
    answers.append(client.post(zip_of(pet_folder)))
    assert [answer.headers["Medgan-Model-Version"] for answer in answers] == ["7", "8"]
    for answer, version in zip(answers, "78", strict=True):
        assert {str(one.SoftwareVersions[1]) for one in unzipped(answer)} == {f"model {version}"}


def zeros(mib):
    """A zip file that unpacks to so many MiB."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a", "w") as file:
        for _ in range(mib):
            file.write(bytes(1 << 20))
    return body.getvalue()


def who_writes(folder):
    """The processes, but this one, that have a file of the folder open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(folder) in os.readlink(link):
                found.add(int(link.parts[2]))
    return found - {os.getpid()}


def test_unpacking_ends_when_its_client_leaves(start):
    client = start(Limits(requests=1))
    with client.connected(zeros(512)):
        end = time.monotonic() + LIMIT_S
        while not (pids := who_writes(client.scratch)) and time.monotonic() < end:
            time.sleep(0.005)
        (pid,) = pids
        os.kill(pid, signal.SIGSTOP)  # as if there were much more to unpack
    assert client.left_behind() == []
    assert not os.path.exists(f"/proc/{pid}")
