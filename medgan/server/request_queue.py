"""Queues requests: a limited number at once, each in its own folder; the network takes one volume at a time."""

import asyncio
import os
import re
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from medgan.errors import CodedError, InputError
from medgan.logs import LOG
from medgan.processes.child import Stopped
from medgan.processes.crew import Crew, limit_of
from medgan.server.alias_watcher import Follower, Served
from medgan.server.translate_upload import read_upload, write_answer
from medgan.server.upload import Limits, Refusal, receive, unpack

WORKERS = 4  # series read, translated or written at once, at least; the others wait on disk
AGAIN_S = 10
IDLE_BYTES = 1 << 30  # what a child may use beside the pixels: headers, compressed frames
KEPT_BYTES = 40 << 20  # a child that has grown by more after a request is replaced
READING = 0.5  # share of a request's time in which an upload is read, or an answer written
COPIES = 2  # of the pixels, decoded and smoothed
Answered = tuple[Path, Served]


class Work:
    """Holds what one request occupies: a folder, and a worker while it is needed; both are released at its end."""

    def __init__(self, scratch: Path, free: Callable[[], None]) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=scratch, prefix=f"{os.getpid()}-"))
        self.upload = self.folder / "upload"
        self.upload.mkdir()
        self._free, self._stop = free, threading.Event()
        self._running: Future[Answered] | None = None

    def start(self, pool: ThreadPoolExecutor, job: Callable[[], Answered]) -> asyncio.Future[Answered]:
        """Runs a job in the pool."""
        self._running = pool.submit(job)
        answer = asyncio.wrap_future(self._running)
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody may be left to see it
        return answer

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

    def _remove(self, _: Future[Answered] | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._free()


class RequestQueue:
    """Accepts a limited number of requests at once, and serves them; images are read and written by children."""

    def __init__(self, follower: Follower, limits: Limits, scratch: Path, *, num_devices: int = 1) -> None:
        self.follower, self.limits, self.scratch = follower, limits, scratch
        workers = max(WORKERS, 2 * num_devices)  # one series is read or written while another is in the network
        self._places = threading.Semaphore(limits.requests)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="answer")
        most = limit_of(workers, READING * limits.request_s)
        memory_bytes = min(most.memory_bytes, COPIES * limits.inflated_bytes + IDLE_BYTES)
        self._crew = Crew(workers, replace(most, memory_bytes=memory_bytes, kept_bytes=KEPT_BYTES))

    def close(self) -> None:
        """Ends the requests in work, and the children."""
        self._crew.close()
        self._pool.shutdown()

    def take_in(self) -> Work:
        """Returns a place for a request.

        Raises:
            Refusal: all places are in use, or there is no network (503).
        """
        if problem := self.follower.current.network.problem():
            raise Refusal("E-SERVER-06", problem=problem, again_s=AGAIN_S, status=503)
        if not self._places.acquire(blocking=False):
            raise Refusal("E-SERVER-02", requests=self.limits.requests, again_s=AGAIN_S, status=503)
        try:
            return Work(self.scratch, self._places.release)
        except OSError as error:
            self._places.release()
            raise as_refusal(error) from None

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
                return await _unless_left(request, work.start(self._pool, lambda: self._answered(work, zipped)))
        except TimeoutError:
            raise Refusal("E-SERVER-03", request_s=limits.request_s, status=504) from None
        except ClientDisconnect:
            raise Refusal("E-SERVER-04", status=400) from None
        except InputError as error:  # a crash, or a limit of a child
            raise Refusal("E-UPLOAD-01", reason=str(error), cause=error.code, status=422) from None
        except Refusal:
            raise
        except CodedError as error:  # a child was killed from outside
            LOG.error("%s", error)
            raise Refusal("E-SERVER-06", problem="a reader died", again_s=AGAIN_S, status=503) from None
        except Exception as error:  # a defect, or a full disk: one request fails, the service goes on
            raise as_refusal(error) from None

    def _answered(self, work: Work, zipped: bool) -> Answered:
        work.go_on()
        if zipped:
            self._crew.run(unpack, work.upload, self.limits, go_on=work.go_on)
        with self.follower.in_use() as served:
            source = self._crew.run(read_upload, work.upload, served.input, self.limits, go_on=work.go_on)
            derived = served.network.translate(source.placed, work.go_on)
        task, facts = served.input.task, served.facts
        path = self._crew.run(write_answer, derived, source.series, work.folder, task, facts, go_on=work.go_on)
        return path, served


async def _unless_left(request: Request, running: asyncio.Future[Answered]) -> Answered:
    """Waits for an answer; raises ClientDisconnect as soon as the client is gone."""
    gone = asyncio.ensure_future(request.receive())
    either: set[asyncio.Future[Any]] = {running, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not running.done():
        raise ClientDisconnect
    return running.result()


def as_refusal(error: Exception) -> Refusal:
    """Logs an unforeseen error by type and place only, as its text may name a patient; returns the refusal."""
    LOG.error("a request failed: %s at %s", type(error).__name__, _place_of(error))
    return Refusal("E-SERVER-05", name=type(error).__name__, status=500)


def _place_of(error: Exception) -> str:
    """Returns where an error was raised, also in a child, as "file.py:12"."""
    raised = re.findall(r'File ".*?([^/"]+)", line (\d+)', "".join(getattr(error, "__notes__", [])))
    last = traceback.extract_tb(error.__traceback__)[-1]
    return ":".join(raised[-1]) if raised else f"{Path(last.filename).name}:{last.lineno}"
