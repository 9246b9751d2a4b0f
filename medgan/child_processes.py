"""Calls functions in child processes that can be killed: a crash, or a limit of memory or time, ends one call only."""

import gc
import os
import queue
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medgan.errors import CodedError, InputError, JobError

Item = TypeVar("Item")
Result = TypeVar("Result")
LOOK_EVERY_S = 0.2
FOLLOW_EVERY_S = 1.0
KEPT_BYTES = 128 << 20  # a child that has grown by more is replaced, so that its memory comes back
LEAST_BYTES = 4 << 30
SHARE = 0.8  # of the machine's memory, for all children
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


@dataclass(frozen=True)
class Limit:
    """Holds what one call may use.

    Attributes:
        memory_bytes: memory beyond that of an idle child; 0: no limit.
        seconds: time until the child is killed.
    """

    memory_bytes: int
    seconds: float


def limit_of(children: int, seconds: float) -> Limit:
    """Returns a limit that gives each child its share of the machine's memory."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Limit(max(LEAST_BYTES, int(SHARE * machine / children)), seconds)


class Callers(Protocol):
    """Calls functions, here or in child processes."""

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Returns the function's result."""

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yields every item with the function's result, or with the InputError that ended its call."""


class InThisProcess:
    """Calls functions in this process, for callers that trust their files, and for tests."""

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Returns the function's result."""
        return _without_garbage_collection(function, *args)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yields every item with the function's result, or with its InputError."""
        for item in items:
            yield item, _or_error(self.run, function, item)


HERE = InThisProcess()


class Child:
    """Holds one child process, which runs one call after the other."""

    def __init__(self, memory_bytes: int = 0) -> None:
        context = get_context("forkserver")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_answer_calls, args=(far, os.getpid(), memory_bytes), daemon=True)
        self._process.start()
        far.close()
        self._memory_bytes = memory_bytes
        self.usable = True

    def call(
        self, function: Callable[..., Result], *args: Any, limit_s: float, go_on: Callable[[], None] = lambda: None
    ) -> Result:
        """Returns the function's result, and raises what it raises.

        Args:
            function, args: what to call; function, arguments and result are pickled.
            go_on: called often; what it raises ends the call and the child.

        Raises:
            InputError: the call crashed the child, or reached a limit.
            JobError: something else killed the child.
        """
        end = time.monotonic() + limit_s
        try:
            self._pipe.send((function, args))
            while not wait([self._pipe, self._process.sentinel], LOOK_EVERY_S):
                if time.monotonic() > end:
                    raise InputError("E-CHILD-03", limit_s=limit_s)
                go_on()
            error, result, full = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise self._lost() from None
        except BaseException:
            self.close()
            raise
        if full:
            self.close()
        if isinstance(error, MemoryError):
            raise InputError("E-CHILD-02", limit=self._memory_bytes / (1 << 30))
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Kills the child, whatever it does."""
        self.usable = False
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _lost(self) -> CodedError:
        self._process.join(FOLLOW_EVERY_S)
        code = self._process.exitcode
        self.close()
        if code is not None and -code in CRASHES:
            return InputError("E-CHILD-01", signal=signal.Signals(-code).name)
        return JobError("E-CHILD-04", exit_code=code)


class Crew:
    """Holds a number of children; each call goes to a free one, and a lost one is replaced."""

    def __init__(self, size: int, limit: Limit) -> None:
        self._size, self._limit = size, limit
        self._free: queue.LifoQueue[Child | None] = queue.LifoQueue()
        self._stop = threading.Event()
        for _ in range(size):
            self._free.put(None)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, function: Callable[..., Result], *args: Any, go_on: Callable[[], None] = lambda: None) -> Result:
        """Returns the function's result, see `Child.call`; waits for a free child."""

        def still_wanted() -> None:
            go_on()
            if self._stop.is_set():
                raise Stopped

        child = self._free.get()
        try:
            child = child or Child(self._limit.memory_bytes)
            return child.call(function, *args, limit_s=self._limit.seconds, go_on=still_wanted)
        finally:
            self._free.put(child if child and child.usable else None)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yields every item with the function's result, or its InputError, in the order in which they finish."""
        with ThreadPoolExecutor(self._size) as threads:
            tasks: dict[Future[Any], Item] = {}
            for item in items:
                tasks[threads.submit(_or_error, self.run, function, item)] = item
            try:
                for task in as_completed(tasks):
                    yield tasks[task], task.result()
            except BaseException:
                self._stop.set()
                threads.shutdown(cancel_futures=True)
                raise

    def close(self) -> None:
        """Kills all children, and ends the calls in progress."""
        self._stop.set()
        for _ in range(self._size):
            if child := self._free.get():
                child.close()


class Stopped(Exception):
    """Says that nobody waits for a call any more."""


def get_ready(module: str) -> None:
    """Starts, in the background, the server that forks the children and imports that module once for all of them.

    The server inherits that Ctrl-C is blocked: only the first process answers Ctrl-C, even during that import.
    """
    get_context("forkserver").set_forkserver_preload([module])
    resource_tracker.ensure_running()  # first: the server needs it, and its start unblocks Ctrl-C
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _or_error(run: Callable[..., Result], function: Callable[[Item], Result], item: Item) -> Result | InputError:
    try:
        return run(function, item)
    except InputError as error:
        return error


def _without_garbage_collection(function: Callable[..., Result], *args: Any) -> Result:
    """Calls the function with garbage collection off: the objects of a series' headers live as long as the call."""
    gc.disable()
    try:
        return function(*args)
    finally:
        gc.enable()


def _answer_calls(pipe: Connection, first: int, memory_bytes: int) -> None:
    """Runs in the child: answers calls until its caller is gone."""
    _follow_first_process(first)
    _keep_quiet()
    _limit_memory(memory_bytes)
    at_rest = _status_bytes("VmRSS")
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        error, result = None, None
        try:
            result = _without_garbage_collection(function, *args)
        except Exception as raised:
            error = raised
            if not isinstance(error, CodedError):
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
        full = _status_bytes("VmRSS") - at_rest > KEPT_BYTES
        pipe.send((error, result, full))
        del function, args, error, result


def _follow_first_process(first: int) -> None:
    """Makes a child ignore Ctrl-C, which the first process answers, and end when the first process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while True:
            time.sleep(FOLLOW_EVERY_S)
            try:
                os.kill(first, 0)  # signal 0 only checks that the process exists
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _keep_quiet() -> None:
    """Drops what decoders print, which may quote a header, and forbids a core file, which would hold a patient."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory(memory_bytes: int) -> None:
    if memory_bytes:
        most = _status_bytes("VmData") + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _status_bytes(name: str) -> int:
    """Returns a size of this process; 0 on a system that does not say."""
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    return int(text.split(f"{name}:")[1].split()[0]) << 10 if f"{name}:" in text else 0
