"""Shows what a training or a search found, and the next commands."""

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from medgan.metrics.validation_metrics import overall_means, overall_spread
from medgan.paths import Place, redacted
from medgan.workflows.train import TrainedModel
from medgan.workflows.tune import SearchResult

UNITS = {"psnr": " (dB)", "mse": " (of 0..255)"}


def show_trained(console: Console, found: TrainedModel, place: Place) -> None:
    """Prints the test metrics of a training beside those without a network, and the next commands."""
    console.print(
        f"\n{len(found.test)} held-out test patients, generator of epoch {found.epoch}; spread: over patients"
    )
    table = Table("test metric", "mean", "spread", found.floor_name, box=None, pad_edge=False)
    means, spread, below = overall_means(found.test), overall_spread(found.test), overall_means(found.floor)
    for name, value in means.items():
        table.add_row(name + UNITS.get(name, ""), f"{value:.4g}", f"{spread[name]:.2g}", f"{below[name]:.4g}")
    console.print(table)
    console.print(f"\nRegistered {found.name} version {found.version}. For research only; not for diagnosis.")
    console.print(f"Pictures: {found.picture}", soft_wrap=True)
    model = f"models:/{found.name}/{found.version}"
    commands = {
        "compare runs": _compare(place),
        "use the model": f"medgan translate --model {model} {_store(place)} SOURCE_FOLDER OUT_FOLDER",
        "promote it": f"medgan promote --model {model} {_store(place)} --data FOLDER",
    }
    if found.goes_on:
        commands["train on"] = "the same command with a larger --set train.epochs=N"
    _commands(console, commands)


def _compare(place: Place) -> str:
    uri = redacted(place.tracking_uri)
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def _store(place: Place) -> str:
    return f"--output {place.output}" if place.owns_tracking else f"--tracking-uri {redacted(place.tracking_uri)}"


def show_result(console: Console, found: SearchResult, place: Place, handovers: Sequence[float]) -> None:
    """Prints the best trial, its test metrics beside those without a network, and the next commands.

    Args:
        handovers: seconds from the end of a trial to the first step of the next.
    """
    outcome = found.outcome
    counts = ", ".join(f"{number} {state}" for state, number in found.counts.items())
    console.print(f"\nStudy {found.study}: {counts}.")
    if found.stopped:
        console.print(f"Budget: {found.stopped}. More of it, or of --trials, goes on from here.")
    _show_front(console, found)
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
    _commands(console, _next_commands(found, place))


def _next_commands(found: SearchResult, place: Place) -> dict[str, str]:
    outcome = found.outcome
    alias = "champion" if "champion" in outcome.aliases else "challenger"
    model = f"--model models:/{outcome.model}@{alias} {_store(place)}"
    commands = {
        "report": str(place.report(found.study) / "report.html"),
        "compare runs": _compare(place),
        "use the model": f"medgan translate {model} {outcome.source}_FOLDER OUT_FOLDER",
    }
    if alias == "challenger":
        commands["promote it"] = f"medgan promote {model} --data FOLDER"
    return {**commands, "search on": "the same command with a larger --trials"}


def _show_front(console: Console, found: SearchResult) -> None:
    """Prints the trials that no other beats in every goal, where there are several goals."""
    if len(found.goals) < 2:
        return
    table = Table("trial", *found.goals, box=None, pad_edge=False, title_justify="left")
    table.title = "No other trial is better in every goal"
    for number, values in found.front:
        table.add_row(str(number), *(f"{value:.4g}" for value in values))
    console.print(table)


def _commands(console: Console, commands: Mapping[str, str]) -> None:
    console.print("\nNext:")
    for name, command in commands.items():
        console.print(f"  {name:<14} {command}", soft_wrap=True)
