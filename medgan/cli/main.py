"""Defines the command line; heavy imports wait until a command runs, so that `--help` is instant."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from medgan.cli import comparison_commands as cli_tables
from medgan.cli import data_commands as cli_data
from medgan.cli import registry_commands as cli_registry
from medgan.cli import run_commands as cli_runs
from medgan.cli import search_commands as cli_search
from medgan.cli import serving_commands as cli_serving
from medgan.cli.options import Data, Output, Preset, Quick, Settings, TaskName, TrackingUri, stoppable
from medgan.data.atomic_write import NO_PLACE
from medgan.errors import InputError, JobError
from medgan.paths import keep_private

app = typer.Typer(
    help="MedGAN: find, compare, promote and deploy medical image translation networks. For research only.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run(command: Callable[..., Any]) -> None:
    """Runs a command and ends with its exit code: 0 done, 1 failed, 2 refused input."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # threads that spin while they wait ruin whoever shares the cores
    keep_private()
    try:
        command()
    except InputError as error:
        print(f"error: {error} [{error.code}]", file=sys.stderr)
        raise SystemExit(2) from None
    except JobError as error:
        print(f"failed: {error} [{error.code}]", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"failed: {where}{error.strerror}. What was finished before is kept.", file=sys.stderr)
        raise SystemExit(1) from None


def run_job(task: str) -> None:
    """Runs `python jobs/tune_<task>.py`."""
    job = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    job.command()(cli_search.tune_task(task))
    run(job)


def run_promote() -> None:
    """Runs `python jobs/promote.py`."""
    job = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    job.command()(cli_registry.promote)
    run(job)


def run_tables() -> None:
    """Runs `python jobs/reproduce_tables.py`."""
    job = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    job.command()(cli_tables.reproduce_tables)
    run(job)


app.add_typer(cli_data.app)
app.add_typer(cli_registry.app)
app.add_typer(cli_runs.app)
app.add_typer(cli_search.app)
app.add_typer(cli_serving.app)


@app.command()
def inspect(
    preset: Preset = "medgan",
    quick: Quick = False,
    every_setting: Annotated[bool, typer.Option("--settings", help="also print every setting and its value")] = False,
    data: Annotated[
        str | None, typer.Option(help="images, as for train: with them, each term's share of the gradient is measured")
    ] = None,
    task: TaskName = "pet2ct",
    output: Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON, for a program")] = False,
    settings: Settings = [],  # noqa: B006 - typer's way
) -> None:
    """Print a method's networks (shapes, parameters, FLOPs, receptive field) and its objective, term by term.

    With --data, also each term's share of the gradient at the generator's output: at the start, and after a few steps.
    """
    from rich.console import Console

    from medgan.cli.network_view import described_as_json, show_networks, show_settings
    from medgan.cli.terminal import Terminal
    from medgan.config import parse_assignment
    from medgan.paths import find_place
    from medgan.tasks import task_named
    from medgan.workflows.describe_networks import InspectRequest
    from medgan.workflows.describe_networks import inspect as inspect_method

    request = InspectRequest(
        task=task_named(task),
        place=find_place(output),
        preset=preset,
        data=data,
        quick=quick,
        overrides=dict(parse_assignment(text) for text in settings),
    )
    with stoppable(), Terminal(console=Console(stderr=True) if as_json else None) as terminal:
        found = inspect_method(request, terminal)
        if as_json:
            print(described_as_json(found, with_settings=every_setting))
            return
        show_networks(terminal.console, found)
        if every_setting:
            show_settings(terminal.console, found.config)


@app.command()
def train(
    preset: Preset = "medgan",
    data: Data = None,
    task: TaskName = "pet2ct",
    quick: Quick = False,
    workers: Annotated[int, typer.Option(help="DDP processes; 1: this process, without Ray")] = 1,
    output: Output = None,
    tracking_uri: TrackingUri = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="take a few steps, say where their time goes, and end; keeps a trace")
    ] = False,
    settings: Settings = [],  # noqa: B006 - typer's way
) -> None:
    """Train one published method, test it on held-out patients, register it; the same command goes on from there.

    Settings by dotted path, such as --set train.minutes=5 --set generator.base_channels=32; see `medgan inspect`.
    """
    from medgan.cli.profile_view import show_profile
    from medgan.cli.summary import show_trained
    from medgan.cli.terminal import Terminal
    from medgan.config import at_least_one, parse_assignment
    from medgan.paths import find_place
    from medgan.tasks import task_named
    from medgan.workflows.profile_training import profile as profile_one
    from medgan.workflows.train import TrainRequest
    from medgan.workflows.train import train as train_one

    request = TrainRequest(
        task=task_named(task),
        place=find_place(output, tracking_uri),
        preset=preset,
        data=data,
        quick=quick,
        workers=at_least_one("--workers", workers),
        overrides=dict(parse_assignment(text) for text in settings),
    )
    with stoppable(), Terminal() as terminal:
        if profile:
            step = profile_one(request, terminal)
            show_profile(terminal.console, step)
        else:
            trained = train_one(request, terminal)
            show_trained(terminal.console, trained, request.place)


def main() -> None:
    """Runs the command `medgan`."""
    run(app)


if __name__ == "__main__":
    main()
