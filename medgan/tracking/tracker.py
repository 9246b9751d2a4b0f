"""What a run can be told, and a thread that tells it in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

from medgan.logs import LOG
from medgan.tracking.outage import retry_while_away
from medgan.units import duration

SOON_S = 3.0
"""What takes no longer to be told is not worth a word."""


class Tracker(Protocol):
    """One run of a tracking store; `heard_ms` is when something happened, milliseconds since 1970, else it is now."""

    def params(self, values: Mapping[str, Any], moved: Mapping[str, float] | None = None) -> None:
        """Settings by dotted path; each can be told once. Those moved are also told as numbers, to sort by."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Facts that may change."""

    def metrics(self, values: Mapping[str, float], step: int, heard_ms: int | None = None) -> None:
        """Numbers of one step; a step that is known already is left as it is."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A copy of a file."""

    def finish(self, status: str, heard_ms: int | None = None) -> None:
        """FINISHED, FAILED or KILLED."""


class Background:
    """Does what it is given in order, in one thread of its own, so that a slow store never holds a search up.

    While the store is away the first call waits, and so do all behind it; none is passed over. A call that is never
    answered does not hold up the end of the process.

    Args:
        say: tells a person that the store is away, or back, and what the end waits for.

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
        """Queues a call, one that can be repeated; a failure is logged and counted, never raised."""
        self.calls.put((call, arguments))

    def close(self, limit_s: float) -> bool:
        """Waits for what is queued; false when it took longer than `limit_s`, or when anything failed."""
        left = self._left_after(min(SOON_S, limit_s))
        if left and limit_s > SOON_S:
            self.say(f"waiting for MLflow to take what is left ({left} calls), {duration(limit_s)} at most")
            left = self._left_after(limit_s - SOON_S)
        self.late = left
        if left:
            LOG.error("tracking: %d calls not made within %s", left, duration(limit_s))
        self.given_up.set()
        self.calls.put(None)
        return not left and not self.failures

    def _left_after(self, limit_s: float) -> int:
        """How many calls are not made once all are, or after so long."""
        with self.calls.all_tasks_done:
            self.calls.all_tasks_done.wait_for(lambda: not self.calls.unfinished_tasks, limit_s)
            return self.calls.unfinished_tasks

    def _work(self) -> None:
        while (queued := self.calls.get()) is not None:
            call, arguments = queued
            if not self.given_up.is_set():
                self._guarded(call, *arguments)
            del queued, call, arguments  # else they stay in memory until the next
            self.calls.task_done()

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            retry_while_away(call, *arguments, say=self.say, given_up=self.given_up)
        except Exception:  # what a store refuses must not end a search
            self.failures += 1
            LOG.exception("tracking: not recorded")
