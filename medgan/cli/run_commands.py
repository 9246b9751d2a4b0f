"""Defines the command about recorded runs: reproduce."""

from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.options import Output, TrackingUri

app = typer.Typer()


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(help="MLflow run of a trial or of a training")],
    data: Annotated[
        Path | None, typer.Option(help="folder of the prepared data set (default: found in datasets/ of --output)")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="only the first so many (default: all that were recorded)")] = None,
    workers: Annotated[int | None, typer.Option(help="DDP processes; 1: this one (default: as recorded)")] = None,
    rtol: Annotated[float, typer.Option(min=0, help="largest relative difference that passes, such as 0.01")] = 1e-4,
    output: Output = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Train a recorded run again from scratch, with its settings, data and threads, and compare its validation metric.

    Says what differs from then (code, versions, hardware), then each epoch's value then and now, then the verdict.
    On a CPU the same code gives the same numbers; on a GPU sums are taken in another order every time, and a
    wider --rtol is fair. Nothing is kept. Exit codes: 0 within --rtol, 1 not, 2 refused input, 130 stopped.
    """
    from medgan.cli.terminal import Terminal
    from medgan.config import at_least_one
    from medgan.paths import find_place
    from medgan.workflows.reproduce import ReproduceRequest
    from medgan.workflows.reproduce import reproduce as train_again

    request = ReproduceRequest(
        run_id=run_id,
        place=find_place(output, tracking_uri),
        data=data.expanduser().absolute() if data else None,
        epochs=None if epochs is None else at_least_one("--epochs", epochs),
        workers=None if workers is None else at_least_one("--workers", workers),
        rtol=rtol,
    )
    try:
        with Terminal() as terminal:
            found = train_again(request, terminal)
            terminal.say(f"run {found.run_id} is reproduced: {found.metric} {found.verdict}")
    except KeyboardInterrupt:
        print("\nStopped. Nothing is kept.")
        raise SystemExit(130) from None
