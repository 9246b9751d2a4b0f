"""What a run can be told; one that does nothing, and one that tells in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

from medgan.terminal import LOG, duration
from medgan.tracking.outage import lasting

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


class NullTracker:
    """Tells nobody."""

    def params(self, values: Mapping[str, Any], moved: Mapping[str, float] | None = None) -> None: ...

    def tags(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int, heard_ms: int | None = None) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def finish(self, status: str, heard_ms: int | None = None) -> None: ...


class Background:
    """Does what it is given in order, in one thread of its own, so that a slow store never holds a search up.

    While the store is away the first call waits, and so do all behind it; none is passed over.

    Args:
        say: tells a person that the store is away, or back, and what the end waits for.

    Attributes:
        failures: calls that the store refused.
        late: calls that were not made before the end.
    """

    def __init__(self, say: Callable[[str], None] = LOG.warning) -> None:
        self.say = say
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self.pending: list[Future[Any]] = []
        self.given_up = threading.Event()
        self.failures = self.late = 0

    def do(self, call: Any, *arguments: Any) -> None:
        """Queues a call, one that can be repeated; a failure is logged and counted, never raised."""
        self.pending = [future for future in self.pending if not future.done()]
        self.pending.append(self.pool.submit(self._guarded, call, *arguments))

    def close(self, limit_s: float) -> bool:
        """Waits for what is queued; false when it took longer than `limit_s`, or when anything failed."""
        _, left = wait(self.pending, min(SOON_S, limit_s))
        if left and limit_s > SOON_S:
            self.say(f"waiting for MLflow to take what is left ({len(left)} calls), {duration(limit_s)} at most")
            _, left = wait(left, limit_s - SOON_S)
        self.late = len(left)
        if left:
            LOG.error("tracking: %d calls not made within %s", len(left), duration(limit_s))
        self.given_up.set()
        self.pool.shutdown(wait=not left, cancel_futures=True)
        return not left and not self.failures

    def _guarded(self, call: Any, *arguments: Any) -> None:
        try:
            lasting(call, *arguments, say=self.say, given_up=self.given_up)
        except Exception:  # what a store refuses must not end a search
            self.failures += 1
            LOG.exception("tracking: not recorded")
