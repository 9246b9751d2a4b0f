"""Gives every rank of a worker group its next order and collects the answers.

The channel is a small Ray actor beside the group, so that no rank waits inside a collective while it is idle. It lives
as long as the Tune actor that made it; when it is gone, the ranks leave by themselves.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

STOP = "stop"


@dataclass(frozen=True)
class Failure:
    """Is the answer of a rank whose order failed; `kind` is diverged, out_of_memory, input or error."""

    kind: str
    message: str


@dataclass(frozen=True)
class Replies:
    """Holds every rank's answer to an order, or why the group is lost and how its ranks failed."""

    answers: tuple[Any, ...] = ()
    lost: str = ""
    failures: tuple[Failure, ...] = ()


class CommandChannel:
    """Passes orders to a group of `size` ranks and answers back; each restart of the group is a new generation."""

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
        """Adds a rank; the first of a new generation ends the old one. Returns the number of the last order."""
        async with self.changed:
            if generation != self.generation:
                self.generation, self.members, self.answers = generation, set(), {}
            self.members.add(rank)
            self.changed.notify_all()
            return self.number

    async def next_order(self, generation: str, seen: int) -> tuple[int, Any]:
        """Waits for the order after number `seen`; returns its number and the order, `STOP` for an old generation."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._over(generation) or self.number > seen)
            return (seen, STOP) if self._over(generation) else (self.number, self.order)

    async def answer(self, generation: str, number: int, rank: int, answer: Any) -> None:
        """Stores a rank's answer; an answer to an earlier generation or order is dropped."""
        async with self.changed:
            if generation == self.generation and number == self.number:
                self.answers[rank] = answer
                self.changed.notify_all()

    async def until_over(self, generation: str) -> None:
        """Returns when this generation has been dismissed or replaced."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._over(generation))

    async def complete(self, limit_s: float) -> str:
        """Waits until all ranks of the generation have joined and returns it; returns "" after `limit_s`."""
        joined = await self._wait(lambda: len(self.members) == self.size and not self._over(self.generation), limit_s)
        return self.generation if joined else ""

    async def ask(self, generation: str, order: Any, *, limit_s: float, grace_s: float) -> Replies:
        """Gives all ranks an order, waits for all answers and returns them.

        Args:
            generation: generation that gets the order; a group that has restarted meanwhile never gets it.
            limit_s: longest wait for all answers.
            grace_s: longest wait for the others once one rank has answered with a `Failure`.
        """
        async with self.changed:
            if self._over(generation):
                return self._lost(generation, "a worker died")
            self.number, self.order, self.answers = self.number + 1, order, {}
            self.changed.notify_all()

        def finished() -> bool:
            return len(self.answers) == self.size or self._over(generation)

        def finished_or_failing() -> bool:
            return finished() or any(isinstance(answer, Failure) for answer in self.answers.values())

        in_time = await self._wait(finished_or_failing, limit_s) and await self._wait(finished, grace_s)
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
        """Ends the present generation after one of its processes died; keeps the first reported cause."""
        async with self.changed:
            if not self._over(self.generation):
                self.deaths[self.generation] = death
        await self.dismiss()

    def _lost(self, generation: str, reason: str) -> Replies:
        """Returns what is known of a generation that is over."""
        answers = self.answers.values() if generation == self.generation else ()
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        death = self.deaths.get(generation)
        messages = [failure.message for failure in failures]
        return Replies(
            lost="; ".join([death.message if death else reason, *messages]),
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
