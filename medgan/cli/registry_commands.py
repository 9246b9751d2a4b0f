"""The commands about registered models: evaluate, promote, rollback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.options import Model, Output, TrackingUri, stoppable

app = typer.Typer()

TestData = Annotated[
    str,
    typer.Option(help="whose test patients: prepared data set, folder or URL, or a folder of images, any layout"),
]


@app.command()
def evaluate(model: Model, data: TestData, output: Output = None, tracking_uri: TrackingUri = None) -> None:
    """Measure a registered model on the test patients of a data set, patient by patient, and keep it with the version.

    Images are prepared first, on the model's grid. A model that was trained or validated on one of the test patients
    is refused, and one where that cannot be known. Errors are in the target's unit (HU, SUV), psnr in dB, times in ms
    a slice, memory in GB; spread is the standard deviation over patients. evaluations/ in --output, and MLflow, get a
    CSV with all metrics and pictures of the best, the median and the worst patient.

    Exit codes: 0 done, 1 failed, 2 refused input, 130 stopped.
    """
    from rich.console import Console

    from medgan.paths import find_place
    from medgan.workflows.evaluate import EvaluateRequest, evaluate_model

    request = EvaluateRequest(model, data, find_place(output, tracking_uri))
    with stoppable():
        evaluate_model(request, Console(highlight=False, width=None if sys.stdout.isatty() else 120))


@app.command()
def promote(
    model: Model,
    data: TestData,
    rules: Annotated[
        Path | None, typer.Option(help="YAML file with the rules (default: see README, promotion)")
    ] = None,
    output: Output = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Compare a registered model with the champion on the same held-out patients; promote it if the rules say so.

    Both are measured on every slice of the test patients, in the unit of the target (HU, SUV). The verdict, the figures
    it rests on and a page with pictures are kept with the candidate's version. Nobody is promoted who has seen a test
    patient. The champion so far becomes `previous`; medgan rollback brings it back.

    Exit codes: 0 champion now, 1 not promoted or failed, 2 refused input, 130 stopped.
    """
    from rich.console import Console

    from medgan.paths import find_place
    from medgan.workflows.promote import PromoteRequest
    from medgan.workflows.promote import promote as judge_and_promote

    request = PromoteRequest(model, data, rules.expanduser() if rules else None, find_place(output, tracking_uri))
    with stoppable():
        passed = judge_and_promote(request, Console(highlight=False, width=None if sys.stdout.isatty() else 120))
    if not passed:
        raise SystemExit(1)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="registered model, such as medgan-pet2ct")],
    output: Output = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make the version that the champion took over from the champion again; whoever follows the alias changes too."""
    from rich.console import Console

    from medgan.paths import find_place
    from medgan.workflows.promote import rollback as roll_back

    roll_back(name, find_place(output, tracking_uri), Console(highlight=False))
