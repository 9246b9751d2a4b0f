"""Defines the commands that search, and that say what a search will do: tune, plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medgan.cli.options import (
    Concurrent,
    Data,
    MaxGpuHours,
    MaxHours,
    Output,
    Settings,
    SpaceName,
    Study,
    StudyUri,
    TrackingUri,
    Trials,
    Workers,
    stoppable,
)
from medgan.tasks import TASKS

if TYPE_CHECKING:
    from medgan.workflows.acceptance import SearchRequest

app = typer.Typer()


def tune_task(name: str) -> Callable[..., None]:
    """Returns the command that searches for one task; `jobs/tune_*.py` and `medgan tune` share it."""

    def command(
        data: Data = None,
        space: SpaceName = None,
        study: Study = None,
        trials: Trials = None,
        workers: Workers = None,
        concurrent: Concurrent = None,
        max_gpu_hours: MaxGpuHours = None,
        max_hours: MaxHours = None,
        output: Output = None,
        tracking_uri: TrackingUri = None,
        study_uri: StudyUri = None,
        settings: Settings = [],  # noqa: B006 - typer's way
    ) -> None:
        options = locals()
        from medgan.cli.search_progress import SearchProgress
        from medgan.cli.summary import show_result
        from medgan.cli.terminal import Terminal
        from medgan.workflows.tune import tune

        request = _request(name, options)
        with stoppable(), Terminal() as terminal:
            progress = SearchProgress(terminal)
            found = tune(request, terminal, progress)
            show_result(terminal.console, found, request.place, progress.handovers)

    command.__doc__ = f"""Search the hyper-parameters of {name}, test the best model on held-out patients, register it.

    The same command again goes on where it stopped. Exit codes: 0 done, 1 failed, 2 refused input, 130 stopped.
    """
    return command


def plan_task(name: str) -> Callable[..., None]:
    """Returns the command that says what the search for one task will do."""

    def command(
        data: Data = None,
        space: SpaceName = None,
        study: Study = None,
        trials: Trials = None,
        workers: Workers = None,
        concurrent: Concurrent = None,
        max_gpu_hours: MaxGpuHours = None,
        max_hours: MaxHours = None,
        output: Output = None,
        tracking_uri: TrackingUri = None,
        study_uri: StudyUri = None,
        settings: Settings = [],  # noqa: B006 - typer's way
        probe: Annotated[
            bool, typer.Option("--probe", help="also make one step of the largest trial, and ask every node")
        ] = False,
    ) -> None:
        options = locals()
        from medgan.cli.terminal import Terminal
        from medgan.workflows.plan_search import plan

        with stoppable(), Terminal() as terminal:
            plan(_request(name, options), terminal, with_probe=probe)

    command.__doc__ = f"""Say what a search for {name} will do: what fits, what it needs, how long; no trial is started.

    The flags are those of `medgan tune {name}`, which says the same first. Exit codes: 0 it can be done, 2 it cannot.
    """
    return command


def _request(name: str, options: Mapping[str, Any]) -> SearchRequest:
    """Returns the request that the options of a command make."""
    from medgan.config import parse_assignment
    from medgan.paths import find_place
    from medgan.tasks import task_named
    from medgan.workflows.acceptance import SearchRequest

    return SearchRequest(
        task=task_named(name),
        place=find_place(options["output"], options["tracking_uri"], options["study_uri"]),
        overrides=dict(parse_assignment(text) for text in options["settings"]),
        **{
            option: options[option]
            for option in ("data", "space", "study", "trials", "workers", "concurrent", "max_gpu_hours", "max_hours")
        },
    )


def _of_every_task(command_for: Callable[[str], Callable[..., None]], text: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True)
    for name in TASKS:
        group.command(name)(command_for(name))
    return group


app.add_typer(_of_every_task(tune_task, "Search the hyper-parameters of a task."), name="tune")
app.add_typer(_of_every_task(plan_task, "Say what a search will do, and start no trial."), name="plan")
