"""Calls functions in child processes, several at a time, or in this process."""

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import forkserver, get_context, resource_tracker
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medgan.errors import CodedError, InputError
from medgan.processes.answering import without_garbage_collection
from medgan.processes.child import Child, Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")
ENOUGH_BYTES = 4 << 30  # for one child
LOST = ("E-CHILD-01", "E-CHILD-04")  # the child crashed, or was killed
SHARE = 0.8  # of the machine's memory, for all children


@dataclass(frozen=True)
class Limit:
    """Holds what one call may use.

    Attributes:
        memory_bytes: memory beyond that of an idle child; 0: no limit.
        seconds: time until the child is killed.
        kept_bytes: a child that has grown by more is replaced, so that its memory comes back; 0: it is kept.
    """

    memory_bytes: int
    seconds: float
    kept_bytes: int = 1 << 30


def machine_bytes() -> int:
    """Returns the memory of this machine, or of its container."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return found if text == "max" else min(found, int(text))


def most_children(wanted: int) -> int:
    """Returns how many children have enough memory, at most as many as wanted."""
    return max(1, min(wanted, int(SHARE * machine_bytes() / ENOUGH_BYTES)))


def limit_of(children: int, seconds: float) -> Limit:
    """Returns a limit that gives each child its share of the machine's memory."""
    return Limit(int(SHARE * machine_bytes() / children), seconds)


class Callers(Protocol):
    """Calls functions, here or in child processes."""

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Returns the function's result."""

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yields every item with the function's result, or with the InputError that ended its call."""

    def stop(self) -> None:
        """Ends the calls in progress, and all later ones."""


class InThisProcess:
    """Calls functions in this process, for callers that trust their files, and for tests."""

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Returns the function's result."""
        return without_garbage_collection(function, *args)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yields every item with the function's result, or with its InputError."""
        for item in items:
            yield item, _or_error(self.run, function, item)

    def stop(self) -> None:
        """Does nothing: who calls here can stop by itself."""


HERE = InThisProcess()


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
        used = child is not None
        try:
            still_wanted()
            child = child or self._child()
            try:
                return child.call(function, *args, limit_s=self._limit.seconds, go_on=still_wanted)
            except CodedError as error:
                if not used or error.code not in LOST:
                    raise
            child = self._child()  # an earlier call may have damaged the one that is lost
            return child.call(function, *args, limit_s=self._limit.seconds, go_on=still_wanted)
        finally:
            self._free.put(child if child and child.usable else None)

    def _child(self) -> Child:
        return Child(self._limit.memory_bytes, self._limit.kept_bytes)

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
                self.stop()
                threads.shutdown(cancel_futures=True)
                raise

    def close(self) -> None:
        """Kills all children, and ends the calls in progress."""
        self.stop()
        for child in [self._free.get() for _ in range(self._size)]:
            if child:
                child.close()
            self._free.put(None)

    def stop(self) -> None:
        """Ends the calls in progress, and all later ones."""
        self._stop.set()


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
