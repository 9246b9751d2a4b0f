"""The mailbox of a worker group: hands every rank its next order and collects the answers.

A small Ray actor beside the group, so that no rank waits inside a collective while it is idle. It lives as long as the
Tune actor that made it; when it is gone, the ranks leave by themselves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

STOP = "stop"


@dataclass(frozen=True)
class Failure:
    """A rank's answer when it could not obey: `kind` is diverged, out_of_memory, input or error."""

    kind: str
    message: str


@dataclass(frozen=True)
class Replies:
    """What came back to an order: an answer of every rank; or why the group is lost, and what its ranks failed with."""

    answers: tuple[Any, ...] = ()
    lost: str = ""
    failures: tuple[Failure, ...] = ()


class Mailbox:
    """Orders and answers of one group of `size` ranks; a restarted group is a new generation of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.generation = ""
        self.dismissed = ""
        self.members: set[int] = set()
        self.number = 0
        self.order: Any = None
        self.answers: dict[int, Any] = {}
        self.deaths: dict[str, Failure] = {}
        self.changed = asyncio.Condition()

    async def join(self, generation: str, rank: int) -> int:
        """A rank reports for work, the first of a new generation ends the old one; returns the last order's number."""
        async with self.changed:
            if generation != self.generation:
                self.generation, self.members, self.answers = generation, set(), {}
            self.members.add(rank)
            self.changed.notify_all()
            return self.number

    async def next_order(self, generation: str, seen: int) -> tuple[int, Any]:
        """Waits for the order after number `seen`."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._over(generation) or self.number > seen)
            return (seen, STOP) if self._over(generation) else (self.number, self.order)

    async def answer(self, generation: str, number: int, rank: int, answer: Any) -> None:
        """A rank's answer; echoes of an earlier generation or order are dropped."""
        async with self.changed:
            if generation == self.generation and number == self.number:
                self.answers[rank] = answer
                self.changed.notify_all()

    async def until_over(self, generation: str) -> None:
        """Returns when this generation has been dismissed or replaced."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._over(generation))

    async def complete(self, limit_s: float) -> str:
        """The generation whose ranks are all there, waiting up to `limit_s` for it; else nothing."""
        there = await self._wait(lambda: len(self.members) == self.size and not self._over(self.generation), limit_s)
        return self.generation if there else ""

    async def ask(self, generation: str, order: Any, *, limit_s: float, grace_s: float) -> Replies:
        """Gives all ranks an order and waits for all answers.

        Args:
            generation: whom it is meant for; a group that has restarted meanwhile never sees it.
            order: what every rank receives.
            limit_s: longest wait for all answers.
            grace_s: longest wait for the others once one rank has answered with a `Failure`.
        """
        async with self.changed:
            if self._over(generation):
                return self._lost(generation, "a worker died")
            self.number, self.order, self.answers = self.number + 1, order, {}
            self.changed.notify_all()

        def settled() -> bool:
            return len(self.answers) == self.size or self._over(generation)

        def failing() -> bool:
            return settled() or any(isinstance(answer, Failure) for answer in self.answers.values())

        in_time = await self._wait(failing, limit_s) and await self._wait(settled, grace_s)
        if generation != self.generation or generation in self.deaths:
            return self._lost(generation, "a worker died")
        if not in_time or self._over(generation):
            silent = sorted(set(range(self.size)) - set(self.answers))
            await self.dismiss()
            return self._lost(generation, f"no answer from rank {', '.join(map(str, silent))}")
        return Replies(answers=tuple(self.answers[rank] for rank in range(self.size)))

    async def dismiss(self) -> None:
        """Ends the present generation: its processes leave, even from inside a collective."""
        async with self.changed:
            self.dismissed = self.generation
            self.changed.notify_all()

    async def mourn(self, death: Failure) -> None:
        """Ends the present generation, one of whose processes died; the first word on why is kept."""
        async with self.changed:
            if not self._over(self.generation):
                self.deaths[self.generation] = death
        await self.dismiss()

    def _lost(self, generation: str, why: str) -> Replies:
        """What is known of a generation that is over."""
        answers = self.answers.values() if generation == self.generation else ()
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        death = self.deaths.get(generation)
        said = [failure.message for failure in failures]
        return Replies(
            lost="; ".join([death.message if death else why, *said]),
            failures=tuple(failures if death is None else [death, *failures]),
        )

    def _over(self, generation: str) -> bool:
        return generation in (self.dismissed, "") or generation != self.generation

    async def _wait(self, condition: Any, limit_s: float) -> bool:
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(condition), limit_s)
            except TimeoutError:
                return False
            return True
