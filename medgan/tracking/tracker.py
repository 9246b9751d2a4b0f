"""What a run can be told; one that does nothing, and one that tells in the background."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

from medgan.terminal import LOG


class Tracker(Protocol):
    """One run of a tracking store."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings by dotted path; each can be told once."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Facts that may change."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step; a step that is known already is left as it is."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A copy of a file."""

    def finish(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""


class NullTracker:
    """Tells nobody."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def tags(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None: ...

    def finish(self, status: str) -> None: ...


class Background:
    """Does what it is given in order, in one thread of its own, so that a slow store never holds a search up."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self.pending: list[Future[Any]] = []
        self.failures = 0

    def do(self, call: Any, *arguments: Any) -> None:
        """Queues a call; a failure is logged and counted, never raised."""
        self.pending = [future for future in self.pending if not future.done()]
        self.pending.append(self.pool.submit(self._guarded, call, *arguments))

    def close(self, limit_s: float) -> bool:
        """Waits for what is queued; false when it took longer than `limit_s`, or when anything failed."""
        _, left = wait(self.pending, limit_s)
        if left:
            LOG.error("tracking: %d calls not made within %.0f s", len(left), limit_s)
        self.pool.shutdown(wait=not left, cancel_futures=True)
        return not left and not self.failures

    def _guarded(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception:  # a store that is away must not end a search
            self.failures += 1
            LOG.exception("tracking: not recorded")
