"""The server keeps to its limits of headers and time, also with clients that send slowly or read nothing."""

import asyncio
import json
import socket
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse

import pytest

from medgan.errors import messages
from medgan.server import app, listener
from medgan.server.upload import Limits

pytestmark = pytest.mark.timeout(120)
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def client(start):
    return start(Limits(requests=2))


def connected(client, begin=b""):
    host, port = client.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(begin)
    return closing(connection)


def answer_to(client, request):
    """The status, and the JSON body, of a request of any bytes."""
    received = b""
    with connected(client) as connection:
        with suppress(ConnectionError):  # the server may have answered and closed
            connection.sendall(request)
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    "headers", [b"X: " + b"a" * (1 << 20), b"".join(b"X%06d: %s\r\n" % (n, b"a" * 90) for n in range(9000))]
)
def test_headers_without_end_are_refused_early(client, headers):
    status, said = answer_to(client, GET + headers)
    assert status == 431
    assert said == {"detail": messages()["E-SERVER-07"].format(most=64), "code": "E-SERVER-07"}
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "request_bytes", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET /health\r\n\r\n", GET + b"no header\r\n\r\n"]
)
def test_what_is_no_http_is_refused_in_json(client, request_bytes):
    status, said = answer_to(client, request_bytes)
    assert (status, said["code"]) == (400, "E-SERVER-08")


def test_slow_headers_end_and_keep_nobody_out(client, monkeypatch):
    monkeypatch.setattr(listener, "HEADER_S", 1.0)
    with connected(client, GET) as slow:
        assert client.get("/health").status_code == 200
        began = time.monotonic()
        for _ in range(20):  # each byte alone would renew a limit of idle connections
            try:
                slow.sendall(b"X")
                time.sleep(0.1)
            except ConnectionError:
                break
        assert slow.recv(10) == b""
        assert time.monotonic() - began < 5


def test_headers_have_their_time_in_every_request_of_a_connection(client, monkeypatch):
    monkeypatch.setattr(listener, "HEADER_S", 1.0)
    with connected(client) as connection:
        for _ in range(3):
            connection.sendall(GET + b"\r\n")
            response = HTTPResponse(connection)
            response.begin()
            assert (response.status, len(response.read()) > 0) == (200, True)
            time.sleep(0.6)


def test_request_in_progress_may_take_longer_than_its_headers(client, monkeypatch, pet_folder, zip_of):
    monkeypatch.setattr(listener, "HEADER_S", 0.5)
    body = zip_of(pet_folder)
    host = client.address.removeprefix("http://")
    head = (
        f"POST /translate HTTP/1.1\r\nHost: {host}\r\nAuthorization: {client.headers['Authorization']}\r\n"
        f"Content-Type: application/zip\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with connected(client, head.encode() + body[:100]) as connection:
        time.sleep(1.0)
        connection.sendall(body[100:])
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_many_idle_connections_keep_nobody_out(client):
    with ExitStack() as idle:
        for _ in range(1500):
            idle.enter_context(connected(client, GET))
        assert client.get("/health").status_code == 200


def test_answer_that_nobody_takes_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "SEND_S", 0.2)
    (tmp_path / "answer").write_bytes(b"x")

    async def never(*_):
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(app.AnswerFile(tmp_path / "answer")({"type": "http", "method": "GET", "headers": []}, never, never))
