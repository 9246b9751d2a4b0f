"""Shows a search: a live table where there is a screen, a line for each event where there is none."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.live import Live
from rich.table import Table

from medgan.cli.terminal import Terminal
from medgan.logs import LOG
from medgan.metrics.validation_metrics import error_text
from medgan.search.trial import Assignment
from medgan.units import duration
from medgan.workflows.missing_trials import SearchStart

WORDS = {
    "pruned": "stopped early", "infrastructure": "interrupted, will be repeated",
    "budget": "halted after its epoch, goes on when there is budget again",
}  # fmt: skip
"""These states are displayed in other words; all other states are displayed as they are."""


@dataclass
class Line:
    """Holds one trial of the table."""

    first_attempt: int
    label: str
    epochs: int
    minutes: float | None
    state: str = "starting"
    epoch: int = 0
    best: float = float("nan")
    error: str = ""
    epoch_s: list[float] = field(default_factory=list)

    @property
    def reached(self) -> str:
        """Returns how far the trial is."""
        if self.minutes:
            return f"{self.epoch}, {sum(self.epoch_s) / 60:.1f} of {self.minutes:g} min"
        return f"{self.epoch}/{self.epochs}"

    def left_s(self, epochs: float) -> float:
        """Returns the seconds until the trial should end, after so many epochs or when its minutes are used."""
        seconds = max(epochs - self.epoch, 0) * statistics.median(self.epoch_s)
        return min(seconds, max(60 * self.minutes - sum(self.epoch_s), 0)) if self.minutes else seconds


class SearchProgress:
    """Watches a search and shows it."""

    start: SearchStart
    live: Live

    def __init__(self, terminal: Terminal) -> None:
        self.terminal, self.finished = terminal, 0
        self.lines: dict[int, Line] = {}
        self.handovers: list[float] = []

    @property
    def _is_live(self) -> bool:
        return self.terminal.console.is_terminal

    def begin(self, start: SearchStart) -> None:
        """Shows the table where there is a screen."""
        self.start, self.finished = start, start.finished
        self.live = Live(
            console=self.terminal.console,
            get_renderable=self._table,
            auto_refresh=self._is_live,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        if self._is_live:
            self.live.start()

    def end(self) -> None:
        """Ends the table; its last state stays on the screen."""
        if self._is_live:
            self.live.stop()

    def started(self, assignment: Assignment) -> None:
        train = assignment.config.train
        line = Line(assignment.first_attempt, assignment.label, train.epochs, train.minutes)
        self.lines.setdefault(assignment.first_attempt, line).state = "starting"

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None:
        line = self.lines[assignment.first_attempt]
        for event in result["events"]:
            self.say(f"{line.label}: {event}")
        if result["epoch"] <= line.epoch or "metrics" not in result:
            return
        metrics = result["metrics"]
        line.state, line.epoch, line.best = "running", result["epoch"], result["values"][0]
        line.error = error_text(metrics)
        line.epoch_s.append(metrics["time/epoch_s"])
        if "time/handover_s" in metrics:
            self.handovers.append(metrics["time/handover_s"])
            LOG.info("trial %d: first step %.2f s after the last trial's end", line.first_attempt, self.handovers[-1])
        self.say(
            f"{line.label}: epoch {line.reached}, {self._value(metrics[self.start.goal.metric])}, "
            f"{line.error}{', ' if line.error else ''}{line.epoch_s[-1]:.1f} s; {self._outlook()}",
            shown=not self._is_live,
        )

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        line = self.lines[assignment.first_attempt]
        line.state = WORDS.get(result["state"], result["state"])
        self.finished += result["state"] not in ("infrastructure", "budget")
        reason = f" ({result['reason']})" if result.get("reason") else ""
        self.say(f"{line.label}: {line.state}{reason}", shown=not self._is_live or bool(reason))

    def refused(self, number: int, reason: str) -> None:
        self.finished += 1
        self.say(f"trial {number}: refused, its settings do not go together ({reason})")

    def _value(self, value: float) -> str:
        return f"{self.start.goal.metric} {number_text(value)}"

    def say(self, text: str, *, shown: bool = True) -> None:
        """Logs an event, and prints it unless the live table shows it."""
        if shown:
            self.terminal.say(text)
        else:
            LOG.info(text)

    def _outlook(self) -> str:
        sign = 1 if self.start.goal.mode == "max" else -1
        begun = [line for line in list(self.lines.values()) if line.best == line.best]
        best = max(begun, key=lambda line: sign * line.best)
        left = self.left_s()
        rest = f", about {duration(left)} left" if left else ""
        return f"{self.finished} of {self.start.target} trials done, best {number_text(best.best)} ({best.label}){rest}"

    def left_s(self) -> float | None:
        """Returns the seconds until the last trial should end; None before anything was measured."""
        lines, forecast = list(self.lines.values()), self.start.forecast
        measured = [seconds for line in lines for seconds in line.epoch_s]
        epoch_s = statistics.fmean(measured) if measured else forecast.epoch_s
        if epoch_s is None:
            return None
        trial_s = min(forecast.epochs * epoch_s, forecast.limit_s)
        running = [line for line in lines if line.state in ("running", "starting")]
        begun = sum(
            line.left_s(line.epochs if line.epoch >= forecast.grace else forecast.epochs) if line.epoch_s else trial_s
            for line in running
        )
        waiting = max(self.start.target - self.finished - len(running), 0)
        return (begun + waiting * trial_s) / self.start.concurrent

    def _table(self) -> Table:
        table = Table(
            "trial",
            "state",
            "epoch",
            f"best {self.start.goal.metric}",
            "last epoch",
            "epoch (s)",
            "time left",
            box=None,
            pad_edge=False,
        )
        for line in list(self.lines.values()):
            seconds = f"{statistics.median(line.epoch_s):.1f}" if line.epoch_s else ""
            number = [number_text(line.best), line.error] if line.epoch else ["", ""]
            going = line.state == "running" and line.epoch_s
            left = duration(line.left_s(line.epochs)) if going else ""
            table.add_row(line.label.removeprefix("trial "), line.state, line.reached, *number, seconds, left)
        started = any(line.epoch for line in list(self.lines.values()))
        table.caption = self._outlook() if started else "starting the worker group (about 20 s)"
        table.caption_justify = "left"
        return table


def number_text(value: float) -> str:
    """Returns a metric as text: three decimals, or four digits where it is large."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
