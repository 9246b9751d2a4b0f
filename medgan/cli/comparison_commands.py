"""Defines the command of `jobs/reproduce_tables.py`."""

from typing import Annotated

import typer

from medgan.cli.options import (
    Concurrent,
    Data,
    Output,
    Settings,
    Study,
    StudyUri,
    TaskName,
    TrackingUri,
    Workers,
    stoppable,
)


def reproduce_tables(
    task: TaskName = "pet2ct",
    data: Data = None,
    methods: Annotated[
        str | None,
        typer.Option(help="presets, with commas between them (default: those of the paper's tables I and II)"),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="trainings of each method (default: 3, with --quick 2)")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="of each training, validation included (default: 3, with --quick 0.4; with --paper 200 epochs)"
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="of each training, instead of --minutes: equal images, not equal time")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="for a look: at most 15 minutes on two cores")] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="as published: 256 px, six blocks, 200 epochs; for GPUs, see what it prints")
    ] = False,
    tuned: Annotated[
        str | None, typer.Option(help="a finished study of the same stores, whose best settings are a row as well")
    ] = None,
    study: Study = None,
    workers: Workers = 1,
    concurrent: Concurrent = None,
    output: Output = None,
    tracking_uri: TrackingUri = None,
    study_uri: StudyUri = None,
    settings: Settings = [],  # noqa: B006 - typer's way
) -> None:
    """Train the methods of the paper's tables on the same patients for the same time (or epochs), and compare them.

    Small networks and slices of 64 px, unless --paper says otherwise. The same command again goes on where it stopped,
    and prints a finished table at once. Exit codes: 0 done, 1 failed, 2 refused input, 130 stopped.
    """
    from medgan.cli.search_progress import SearchProgress
    from medgan.cli.terminal import Terminal
    from medgan.config import parse_assignment
    from medgan.errors import InputError
    from medgan.paths import find_place
    from medgan.tasks import task_named
    from medgan.workflows.acceptance import SearchRequest
    from medgan.workflows.compare_methods import TablesRequest
    from medgan.workflows.compare_methods import reproduce_tables as reproduce

    if quick and paper:
        raise InputError("E-CLI-01")
    request = TablesRequest(
        search=SearchRequest(
            task=task_named(task),
            place=find_place(output, tracking_uri, study_uri),
            data=data,
            study=study,
            workers=workers,
            concurrent=concurrent,
            overrides=dict(parse_assignment(text) for text in settings),
        ),
        scale="quick" if quick else "paper" if paper else "small",
        methods=tuple(name.strip() for name in methods.split(",")) if methods else (),
        tuned=tuned,
        seeds=seeds,
        minutes=minutes,
        epochs=epochs,
    )
    with stoppable(), Terminal() as terminal:
        found = reproduce(request, terminal, SearchProgress(terminal))
        terminal.console.print(found.markdown, markup=False, soft_wrap=True)
        terminal.say(f"Tables, figures of every patient, pictures: {found.folder}")
