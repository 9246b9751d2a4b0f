"""Listens for HTTP requests within limits of size and time, in a thread of its own."""

import asyncio
import json
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from medgan.errors import JobError
from medgan.server.upload import Refusal

HEADER_BYTES = 64 << 10
HEADER_S = 20.0  # from the first byte of a request to the end of its headers
UNREAD_S = 120.0  # while the client takes nothing of an answer
START_S = 30.0
STOP_S = 5.0
TOO_LARGE = 431


class LimitedProtocol(H11Protocol):
    """Refuses large headers with 431, and closes connections that send headers slowly or read no answer."""

    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNREAD_S))
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Waits for the end of the headers, unless a request is in progress."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_nothing()
        elif self.late is None and not self.transport.is_closing():
            self._expect_headers()

    def on_response_complete(self) -> None:
        """Leaves the connection to the limit of idle ones."""
        self._expect_nothing()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that is no valid HTTP: in JSON, and with 431 where its headers are too large."""
        refusal = Refusal("E-SERVER-08", status=400)
        if getattr(sys.exception(), "error_status_hint", 400) == TOO_LARGE:
            refusal = Refusal("E-SERVER-07", most=HEADER_BYTES >> 10, status=TOO_LARGE)
        body = json.dumps({"detail": str(refusal), "code": refusal.code}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        parts = (h11.Response(status_code=refusal.status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        self.transport.close()

    def _expect_headers(self) -> None:
        self.late = self.loop.call_later(HEADER_S, self.transport.close)

    def _expect_nothing(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None


@contextmanager
def listening(app: FastAPI, sock: socket.socket) -> Iterator[threading.Thread]:
    """Serves an app at a socket inside the context; yields the thread, which ends early only by a defect.

    Raises:
        JobError: the server does not start.
    """
    _allow_many_connections()
    options: dict[str, Any] = {"http": LimitedProtocol, "ws": "none", "lifespan": "off", "log_level": "critical"}
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=int(STOP_S),
            access_log=False,
            server_header=False,
            **options,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True, name="listener")
    thread.start()
    waited = threading.Event()
    for _ in range(int(START_S / 0.05)):
        if server.started or not thread.is_alive():
            break
        waited.wait(0.05)
    try:
        if not server.started:
            raise JobError("E-SERVE-03", starting_s=START_S, state="not listening")
        yield thread
    finally:
        server.should_exit = True
        thread.join(2 * STOP_S)


def _allow_many_connections() -> None:
    """Lets this process open as many files as the system allows, so that idle connections keep nobody out."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
