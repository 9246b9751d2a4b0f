"""What a person reads before and after a search."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medgan.logs import LOG
from medgan.metrics.validation_metrics import Patients, error_text, overall_means, overall_spread
from medgan.paths import Place, redacted
from medgan.search.objectives import goals_of
from medgan.search.study import Study, finished, first_attempt_of, front, summary
from medgan.units import duration

OUTCOME = "outcome"
UNITS = {"psnr": " (dB)", "mse": " (of 0..255)"}


@dataclass(frozen=True)
class Outcome:
    """How a study ended; kept with the study, so that asking again prints the same.

    Attributes:
        root: the best trial.
        metric: the first goal.
        value: of it, in the trial's best epoch.
        params: its moving settings.
        test: metric -> mean over the test patients.
        floor: the same without a network.
        floor_name: what was taken for the output there.
        source: the source's modality.
        num_patients: test patients.
        model: name of the registered model.
        version: of the model.
        aliases: that name this version.
        verdict: why it is champion, or not.
    """

    root: int
    metric: str
    value: float
    params: dict[str, Any]
    test: dict[str, float]
    floor: dict[str, float]
    floor_name: str
    source: str
    num_patients: int
    model: str
    version: str
    aliases: list[str]
    verdict: str

    def keep(self, study: Study) -> None:
        """Writes it into the study database."""
        study.set_user_attr(OUTCOME, json.dumps(asdict(self)))

    @classmethod
    def of(cls, study: Study) -> Outcome | None:
        """What was kept, or none."""
        kept = study.user_attrs.get(OUTCOME)
        return cls(**json.loads(kept)) if kept else None


def show_facts(console: Console, facts: Mapping[str, str]) -> None:
    """What is about to be done, a line a fact."""
    for name, fact in facts.items():
        console.print(f"[bold]{name:<10}[/bold]{escape(fact)}", soft_wrap=True)
    console.print()


class Lines:
    """A training's epochs on the terminal: one line that changes where there is a screen, else a line each.

    Args:
        console: where to.
        epochs: at most.
    """

    def __init__(self, console: Console, *, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        self.status = console.status("first epoch ...")

    def __enter__(self) -> Lines:
        if self.console.is_terminal:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.status.stop()

    def say(self, text: str) -> None:
        """An event, on a line of its own."""
        self.console.print(text, markup=False, soft_wrap=True)

    def epoch(self, history: Sequence[Mapping[str, float]], progress: float) -> None:
        """The last epoch of the history, and the time left."""
        row, number = history[-1], len(history)
        spent = sum(one["time/epoch_s"] for one in history)
        mae = f", {error}" if (error := error_text(row)) else ""
        left = f"about {duration(spent / progress - spent)} left" if progress < 1 else "done"
        text = (
            f"epoch {number}/{self.epochs}: val/ssim {row['val/ssim']:.3f}{mae}, {row['time/epoch_s']:.1f} s; "
            f"best {max(one['val/ssim'] for one in history):.3f}, {left}"
        )
        LOG.info(text)
        if self.console.is_terminal:
            self.status.update(text)
        else:
            self.say(text)


def show_tested(console: Console, test: Patients, floor: Patients, *, floor_name: str, epoch: int) -> None:
    """The test metrics of a training, mean and spread over patients, beside those without a network."""
    console.print(f"\n{len(test)} held-out test patients, generator of epoch {epoch}; spread: over patients")
    table = Table("test metric", "mean", "spread", floor_name, box=None, pad_edge=False)
    means, spread, below = overall_means(test), overall_spread(test), overall_means(floor)
    for name, value in means.items():
        table.add_row(name + UNITS.get(name, ""), f"{value:.4g}", f"{spread[name]:.2g}", f"{below[name]:.4g}")
    console.print(table)


def show_registered(console: Console, name: str, version: str, *, picture: Path, place: Place, goes_on: bool) -> None:
    """Where a training's model and pictures are, and the next commands."""
    console.print(f"\nRegistered {name} version {version}. For research only; not for diagnosis.")
    console.print(f"Pictures: {picture}", soft_wrap=True)
    model = f"models:/{name}/{version}"
    commands = {
        "compare runs": _compare(place),
        "use the model": f"medgan translate --model {model} {_store(place)} SOURCE_FOLDER OUT_FOLDER",
        "promote it": f"medgan promote --model {model} {_store(place)} --data FOLDER",
    }
    if goes_on:
        commands["train on"] = "the same command with a larger --set train.epochs=N"
    _commands(console, commands)


def _compare(place: Place) -> str:
    uri = redacted(place.tracking_uri)
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def _store(place: Place) -> str:
    return f"--output {place.output}" if place.owns_tracking else f"--tracking-uri {redacted(place.tracking_uri)}"


def show_result(
    console: Console, outcome: Outcome, *, place: Place, study: Study, handovers: list[float], stopped: str = ""
) -> None:
    """The best trial, its test metrics beside those without a network, and the next commands.

    Args:
        stopped: which limit of the budget ended the search, for a person; "" for none.
    """
    counts = ", ".join(f"{number} {state}" for state, number in summary(finished(study)).items())
    console.print(f"\nStudy {study.study_name}: {counts}.")
    if stopped:
        console.print(f"Budget: {stopped}. More of it, or of --trials, goes on from here.")
    _show_front(console, study)
    console.print(f"Best trial {outcome.root}: {outcome.metric} {outcome.value:.4f}")
    for name, value in outcome.params.items():
        console.print(f"  {name:<24} {value:.4g}" if isinstance(value, float) else f"  {name:<24} {value}")
    table = Table("test metric", "medgan", outcome.floor_name, box=None, pad_edge=False, title_justify="left")
    table.title = f"\n{outcome.num_patients} held-out test patients"
    for name, value in outcome.test.items():
        table.add_row(name + UNITS.get(name, ""), f"{value:.4g}", f"{outcome.floor[name]:.4g}")
    console.print(table)
    if handovers:
        console.print(f"\nHand-over from trial to trial: {statistics.median(handovers):.2f} s (median)")
    console.print(
        f"\nRegistered {outcome.model} version {outcome.version} as {' and '.join(outcome.aliases)}: {outcome.verdict}."
    )
    console.print("For research only; not for diagnosis.")
    alias = "champion" if "champion" in outcome.aliases else "challenger"
    model = f"--model models:/{outcome.model}@{alias} {_store(place)}"
    commands = {
        "report": str(place.report(study.study_name) / "report.html"),
        "compare runs": _compare(place),
        "use the model": f"medgan translate {model} {outcome.source}_FOLDER OUT_FOLDER",
    }
    if alias == "challenger":
        commands["promote it"] = f"medgan promote {model} --data FOLDER"
    _commands(console, {**commands, "search on": "the same command with a larger --trials"})


def _show_front(console: Console, study: Study) -> None:
    """The trials that no other beats in every goal, where there are several."""
    goals, trials = goals_of(study), front(study)
    if len(goals) < 2:
        return
    table = Table("trial", *(goal.metric for goal in goals), box=None, pad_edge=False, title_justify="left")
    table.title = "No other trial is better in every goal"
    for trial in trials:
        table.add_row(str(first_attempt_of(trial)), *(f"{value:.4g}" for value in trial.values))
    console.print(table)


def _commands(console: Console, commands: Mapping[str, str]) -> None:
    console.print("\nNext:")
    for name, command in commands.items():
        console.print(f"  {name:<14} {command}", soft_wrap=True)
