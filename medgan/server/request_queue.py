"""Queues requests: a limited number at once, each in its own folder; the network takes one volume at a time."""

import asyncio
import os
import shutil
import tempfile
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from medgan.logs import LOG
from medgan.server.alias_watcher import Follower, Served
from medgan.server.translate_upload import answer
from medgan.server.upload import Limits, Refusal, receive, unpack

WORKERS = 4  # series read, translated or written at once; the others wait on disk
AGAIN_S = 10
Answer = tuple[Path, Served]


class Stopped(Exception):
    """Says that the request has ended, so that nobody waits for the work any more."""


class Work:
    """Holds what one request occupies: a folder, and a worker while it is needed; both are released at its end."""

    def __init__(self, scratch: Path, free: Callable[[], None]) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=scratch, prefix=f"{os.getpid()}-"))
        self.upload = self.folder / "upload"
        self.upload.mkdir()
        self._free, self._stop = free, threading.Event()
        self._running: Future[Answer] | None = None

    def start(self, pool: ThreadPoolExecutor, job: Callable[[], Answer]) -> Awaitable[Answer]:
        """Runs a job in the pool."""
        self._running = pool.submit(job)
        return asyncio.wrap_future(self._running)

    def go_on(self) -> None:
        """Raises `Stopped` once the request has ended."""
        if self._stop.is_set():
            raise Stopped

    def end(self) -> None:
        """Removes the folder as soon as the job no longer writes to it."""
        self._stop.set()
        if self._running is None:
            self._remove(None)
        else:
            self._running.add_done_callback(self._remove)

    def _remove(self, _: Future[Answer] | None) -> None:
        self._free()
        shutil.rmtree(self.folder, ignore_errors=True)


class RequestQueue:
    """Accepts a limited number of requests at once, and serves them; one volume at a time uses the network."""

    def __init__(self, follower: Follower, limits: Limits, scratch: Path) -> None:
        self.follower, self.limits, self.scratch = follower, limits, scratch
        self._places = threading.Semaphore(limits.requests)
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="answer")

    def take_in(self) -> Work:
        """Returns a place for a request.

        Raises:
            Refusal: all places are in use (503).
        """
        if not self._places.acquire(blocking=False):
            raise Refusal("E-SERVER-02", requests=self.limits.requests, again_s=AGAIN_S, status=503)
        try:
            return Work(self.scratch, self._places.release)
        except OSError as error:
            self._places.release()
            raise _failed(error) from None

    async def serve(self, request: Request, work: Work) -> tuple[Path, Served]:
        """Returns the answer to a request, and the version that gave it.

        Raises:
            Refusal: the request cannot be served.
        """
        limits = self.limits
        try:
            async with asyncio.timeout(limits.request_s):
                content_type = request.headers.get("content-type", "")
                zipped = await receive(request.stream(), content_type, work.upload, limits=limits)
                return await work.start(self._pool, lambda: self._answer(work, zipped))
        except TimeoutError:
            raise Refusal("E-SERVER-03", request_s=limits.request_s, status=504) from None
        except ClientDisconnect:
            raise Refusal("E-SERVER-04", status=400) from None
        except Refusal:
            raise
        except Exception as error:  # a defect, or a full disk: one request fails, the service goes on
            raise _failed(error) from None

    def _answer(self, work: Work, zipped: bool) -> tuple[Path, Served]:
        work.go_on()
        if zipped:
            unpack(work.upload, self.limits)
        served = self.follower.current
        path = answer(served, work.upload, work.folder, limits=self.limits, network=self._network, go_on=work.go_on)
        return path, served


def _failed(error: Exception) -> Refusal:
    """Logs an unforeseen error by type and place only, as its text may name a patient; returns the refusal."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    LOG.error("a request failed: %s at %s:%d", type(error).__name__, Path(last.filename).name, last.lineno)
    return Refusal("E-SERVER-05", name=type(error).__name__, status=500)
