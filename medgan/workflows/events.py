"""Defines what a workflow reports while it runs: the command line shows it, a program may ignore it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """Says one thing in a line of text."""

    text: str


@dataclass(frozen=True)
class Announcement:
    """Says what is about to happen: name -> fact."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class EnginesStart:
    """Says that engines may print from here on, and which log file is for that."""

    log_file: Path


@dataclass(frozen=True)
class Advance:
    """Says how many of the `total` things named by `what` are done; a total of None is not known yet."""

    what: str
    done: int
    total: int | None


@dataclass(frozen=True)
class EpochDone:
    """Says that an epoch of a training has ended.

    Attributes:
        epoch: number of the epoch, from 1, of at most `epochs`.
        ssim: its `val/ssim`.
        error: its mean absolute error with the unit, such as `MAE 42 HU`; "" where none was measured.
        best: highest `val/ssim` so far.
        left_s: seconds until the training should end; 0 at its end.
    """

    epoch: int
    epochs: int
    ssim: float
    error: str
    epoch_s: float
    best: float
    left_s: float


Notify = Callable[[Any], None]
"""Takes an event: one of the above, or a frozen object that a workflow reports, such as an `Evaluation`."""


def ignore(event: Any) -> None:
    """Does nothing with an event."""


def say(notify: Notify) -> Callable[[str], None]:
    """Returns a function that reports a text as a `Note`."""
    return lambda text: notify(Note(text))


def advancing(notify: Notify, what: str) -> Callable[[int, int], None]:
    """Returns a progress function of (done, total) that reports an `Advance`."""
    return lambda done, total: notify(Advance(what, done, total))
