"""Defines what a tracking store records about a run, and makes the calls to it in the background."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

from medgan.logs import LOG
from medgan.tracking.outage import retry_while_away
from medgan.units import duration

SOON_S = 3.0
"""A wait that is not longer than this is not reported."""


class Tracker(Protocol):
    """Records one run; `heard_ms` is the time of the event, milliseconds since 1970; None: now."""

    def params(self, values: Mapping[str, Any], moved: Mapping[str, float] | None = None) -> None:
        """Records settings by dotted path, each once; records those in `moved` as numbers too, to sort by."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Records facts that may change."""

    def metrics(self, values: Mapping[str, float], step: int, heard_ms: int | None = None) -> None:
        """Records the numbers of one step; a step that is recorded already stays as it is."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Stores a copy of a file."""

    def finish(self, status: str, heard_ms: int | None = None) -> None:
        """Ends the run as FINISHED, FAILED or KILLED."""


class Background:
    """Makes calls in their order, in one thread of its own, so that a slow store never delays a search.

    While the store is away the first call waits, and so do all calls behind it; none is skipped. A call that is never
    answered does not delay the end of the process.

    Args:
        say: reports to a person that the store is away, or back, and what `close` waits for.

    Attributes:
        failures: calls that the store refused.
        late: calls that were not made before the end.
    """

    def __init__(self, say: Callable[[str], None] = LOG.warning) -> None:
        self.say = say
        self.calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = Queue()
        self.given_up = threading.Event()
        self.failures = self.late = 0
        # no ThreadPoolExecutor: Python waits for its threads at exit
        self.thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self.thread.start()

    def do(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Queues a call that can be repeated; a failure is logged and counted, never raised."""
        self.calls.put((call, arguments))

    def close(self, limit_s: float) -> bool:
        """Waits for the queued calls; returns false if they took longer than `limit_s`, or if any call failed."""
        left = self._left_after(min(SOON_S, limit_s))
        if left and limit_s > SOON_S:
            self.say(f"sending the remaining results to MLflow ({left} calls), for {duration(limit_s)} at most")
            left = self._left_after(limit_s - SOON_S)
        self.late = left
        if left:
            LOG.error("tracking: %d calls not made within %s", left, duration(limit_s))
        self.given_up.set()
        self.calls.put(None)
        return not left and not self.failures

    def _left_after(self, limit_s: float) -> int:
        """Waits until all calls are made, `limit_s` at most; returns how many are left."""
        with self.calls.all_tasks_done:
            self.calls.all_tasks_done.wait_for(lambda: not self.calls.unfinished_tasks, limit_s)
            return self.calls.unfinished_tasks

    def _work(self) -> None:
        while (queued := self.calls.get()) is not None:
            call, arguments = queued
            if not self.given_up.is_set():
                self._guarded(call, *arguments)
            del queued, call, arguments  # else they stay in memory until the next call
            self.calls.task_done()

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            retry_while_away(call, *arguments, say=self.say, given_up=self.given_up)
        except Exception:  # a refusal by the store must not end a search
            self.failures += 1
            LOG.exception("tracking: not recorded")
