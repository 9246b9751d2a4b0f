"""Maps a function over worker processes, which end with the process that started them and leave Ctrl-C to it."""

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
    """Yields every item with the function's result, in the order in which they finish.

    Args:
        function: function of one item; both picklable where there is more than one process.
        processes: number of worker processes; 1: the function runs in this process.
        caller: "helps": this process also works on items that no worker has taken, for example while workers start.

    Raises:
        JobError: a process was killed.
    """
    items = list(items)
    if processes == 1:
        yield from ((item, _without_garbage_collection(function, item)) for item in items)
        return
    context = get_context("forkserver")
    pool = ProcessPoolExecutor(processes, context, initializer=_follow_first_process, initargs=(os.getpid(),))
    try:
        tasks = {pool.submit(_without_garbage_collection, function, item): item for item in items}
        for task in reversed(list(tasks)) if caller == "helps" else ():
            if not task.cancel():
                break
            item = tasks.pop(task)
            yield item, _without_garbage_collection(function, item)
        for task in as_completed(tasks):
            yield tasks[task], task.result()
    except BrokenProcessPool:
        raise JobError("E-PREPARE-08", processes=processes) from None
    finally:
        pool.shutdown(cancel_futures=True)


def get_ready(module: str) -> None:
    """Starts, in the background, the server that forks the workers and imports that module once for all of them.

    The server inherits that Ctrl-C is blocked: only the first process answers Ctrl-C, even during that import.
    """
    get_context("forkserver").set_forkserver_preload([module])
    resource_tracker.ensure_running()  # first: the server needs it, and its start unblocks Ctrl-C
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _without_garbage_collection(function: Callable[[Item], Result], item: Item) -> Result:
    """Calls the function with garbage collection off: the objects of a series' headers live as long as the item."""
    gc.disable()
    try:
        return function(item)
    finally:
        gc.enable()


def _follow_first_process(first: int) -> None:
    """Makes a worker ignore Ctrl-C, which the first process answers, and end when the first process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            try:
                os.kill(first, 0)  # signal 0 only checks that the process exists
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
