"""Map a function over worker processes, which end with the one that began and leave Ctrl-C to it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_context, resource_tracker
from typing import Literal, TypeVar

from medgan.errors import JobError

Item = TypeVar("Item")
Result = TypeVar("Result")
LOOK_EVERY_S = 1.0


def each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    processes: int,
    caller: Literal["waits", "helps"] = "waits",
) -> Iterator[tuple[Item, Result]]:
    """Every item with what the function makes of it, as they are done.

    Args:
        function: picklable where there is more than one process.
        items: picklable.
        processes: 1: in this process.
        caller: "helps": this process, too, works on items that no worker has taken, such as while workers start.

    Raises:
        JobError: a process was killed.
    """
    items = list(items)
    if processes == 1:
        yield from ((item, _undisturbed(function, item)) for item in items)
        return
    context = get_context("forkserver")
    pool = ProcessPoolExecutor(processes, context, initializer=_follow, initargs=(os.getpid(),))
    try:
        tasks = {pool.submit(_undisturbed, function, item): item for item in items}
        for task in reversed(list(tasks)) if caller == "helps" else ():
            if not task.cancel():
                break
            item = tasks.pop(task)
            yield item, _undisturbed(function, item)
        for task in as_completed(tasks):
            yield tasks[task], task.result()
    except BrokenProcessPool:
        raise JobError("E-PREPARE-08") from None
    finally:
        pool.shutdown(cancel_futures=True)


def get_ready(module: str) -> None:
    """Starts, in the background, the server whose forks are the workers, with that module imported once for all.

    It inherits that Ctrl-C is blocked: while it imports, too, the first process answers.
    """
    get_context("forkserver").set_forkserver_preload([module])
    resource_tracker.ensure_running()  # which the server needs, and which lets Ctrl-C through as it starts
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _undisturbed(function: Callable[[Item], Result], item: Item) -> Result:
    """Garbage is collected between two items, not within: what a series' headers are made of lives as long as it."""
    gc.disable()
    try:
        return function(item)
    finally:
        gc.enable()


def _follow(first: int) -> None:
    """A worker ignores Ctrl-C, which the first process answers, and ends when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            try:
                os.kill(first, 0)  # asks whether it is there
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
