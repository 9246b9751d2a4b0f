"""Shows the events of a workflow on the terminal, and keeps what engines print out of it."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from medgan.logs import LOG
from medgan.units import duration
from medgan.workflows.events import Advance, Announcement, EnginesStart, EpochDone, Note


@contextmanager
def quiet_engines(log_file: Path) -> Iterator[Console]:
    """Sends everything that is written to standard output and error, by any library, to `log_file`.

    Yields:
        A console that still writes to the terminal.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    with log_file.open("a") as sink, os.fdopen(os.dup(1), "w", buffering=1) as terminal, warnings.catch_warnings():
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield Console(file=terminal, highlight=False, width=None if terminal.isatty() else 120)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            LOG.removeHandler(handler)
            handler.close()


class Terminal:
    """Shows the events of one workflow; a context manager that gives the terminal back at its end.

    Args:
        shows: kind of event -> function that shows it on a console, for what only one workflow reports.
        console: where to show; None: standard output.
    """

    def __init__(
        self, shows: Mapping[type, Callable[[Console, Any], None]] | None = None, console: Console | None = None
    ) -> None:
        self.console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        self._shows = {
            Note: lambda _, event: self.say(event.text),
            Announcement: show_facts,
            EnginesStart: lambda _, event: self._silence(event.log_file),
            Advance: lambda _, event: self._advance(event),
            EpochDone: lambda _, event: self._epoch(event),
            **(shows or {}),
        }
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._began, self._left = time.monotonic(), ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_bar()
        self._stack.close()

    def __call__(self, event: Any) -> None:
        """Shows an event."""
        self._shows[type(event)](self.console, event)

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one, and logs it."""
        LOG.info(text)
        self.console.print(text + self._left * text.startswith("series "), markup=False, soft_wrap=True)

    def _silence(self, log_file: Path) -> None:
        self._end_bar()
        self.console = self._stack.enter_context(quiet_engines(log_file))

    def _advance(self, event: Advance) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            hidden = not self.console.is_terminal
            self._bar = Progress(*columns, console=self.console, transient=True, disable=hidden)
            self._bar.add_task(event.what, total=None)
            self._bar.start()
            self._began = time.monotonic()
        self._bar.update(self._bar.task_ids[0], description=event.what, completed=event.done, total=event.total)
        self._left = ""
        if event.total and 0 < event.done < event.total:
            each_s = (time.monotonic() - self._began) / event.done
            self._left = f"; about {duration(each_s * (event.total - event.done))} left" * self._bar.disable
        if event.done == event.total:
            self._end_bar()

    def _epoch(self, event: EpochDone) -> None:
        error = f", {event.error}" if event.error else ""
        left = f"about {duration(event.left_s)} left" if event.left_s else "done"
        text = (
            f"epoch {event.epoch}/{event.epochs}: val/ssim {event.ssim:.3f}{error}, "
            f"{event.epoch_s:.1f} s; best {event.best:.3f}, {left}"
        )
        if not self.console.is_terminal:
            return self.say(text)
        LOG.info(text)
        if self._bar is None:
            self._bar = Progress(
                SpinnerColumn(), TextColumn("{task.description}"), console=self.console, transient=True
            )
            self._bar.add_task("")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=text)
        return None

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show_facts(console: Console, event: Announcement) -> None:
    """Prints a line for each fact."""
    for name, fact in event.facts.items():
        console.print(f"[bold]{name:<10}[/bold]{escape(fact)}", soft_wrap=True)
    console.print()
