"""What a person reads before and after a search."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medgan.place import Place, shown
from medgan.search.study import Study, finished, summary
from medgan.terminal import duration

OUTCOME = "outcome"
UNITS = {"psnr": " (dB)", "mse": " (of 0..255)"}


@dataclass(frozen=True)
class Outcome:
    """How a study ended; kept with the study, so that asking again prints the same.

    Attributes:
        root: the best trial.
        value: its validation SSIM, in its best epoch.
        params: its moving settings.
        test: metric -> mean over the test patients.
        mean_image: the same for the mean image of the training targets.
        num_patients: test patients.
        model: name of the registered model.
        version: of the model.
        aliases: that name this version.
        verdict: why it is champion, or not.
    """

    root: int
    value: float
    params: dict[str, Any]
    test: dict[str, float]
    mean_image: dict[str, float]
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


def show_plan(console: Console, facts: Mapping[str, str], *, trials: int, seconds: float | None) -> None:
    """The plan: what, on what, where to, how long."""
    lines = dict(facts)
    if trials:
        expected = f"about {duration(seconds)}" if seconds is not None else "known after the first epochs"
        lines["expected"] = f"{expected} for {trials} trials, early stopping counted in"
    for name, fact in lines.items():
        console.print(f"[bold]{name:<10}[/bold]{escape(fact)}", soft_wrap=True)
    console.print()


def show_result(console: Console, outcome: Outcome, *, place: Place, study: Study, handovers: list[float]) -> None:
    """The best trial, its test metrics beside the mean image's, and the next commands."""
    counts = ", ".join(f"{number} {state}" for state, number in summary(finished(study)).items())
    console.print(f"\nStudy {study.study_name}: {counts}.")
    console.print(f"Best trial {outcome.root}: val/ssim {outcome.value:.4f}")
    for name, value in outcome.params.items():
        console.print(f"  {name:<24} {value:.4g}" if isinstance(value, float) else f"  {name:<24} {value}")
    table = Table("test metric", "medgan", "mean image", box=None, pad_edge=False, title_justify="left")
    table.title = f"\n{outcome.num_patients} held-out test patients"
    for name, value in outcome.test.items():
        table.add_row(name + UNITS.get(name, ""), f"{value:.4g}", f"{outcome.mean_image[name]:.4g}")
    console.print(table)
    if handovers:
        console.print(f"\nHand-over from trial to trial: {statistics.median(handovers):.2f} s (median)")
    console.print(
        f"\nRegistered {outcome.model} version {outcome.version} as {' and '.join(outcome.aliases)}: {outcome.verdict}."
    )
    console.print("For research only; not for diagnosis.")
    alias = "champion" if "champion" in outcome.aliases else "challenger"
    uri = shown(place.tracking_uri)
    server = uri.startswith("http")
    store = f"--output {place.output}" if place.owns_tracking else f"--tracking-uri {uri}"
    _commands(
        console,
        {
            "compare runs": uri if server else f"mlflow ui --backend-store-uri {uri}",
            "use the model": f"medgan translate --model models:/{outcome.model}@{alias} {store} PET_FOLDER OUT_FOLDER",
            "search on": "the same command with a larger --trials",
        },
    )


def _commands(console: Console, commands: Mapping[str, str]) -> None:
    console.print("\nNext:")
    for name, command in commands.items():
        console.print(f"  {name:<14} {command}", soft_wrap=True)
