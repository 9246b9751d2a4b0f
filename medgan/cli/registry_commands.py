"""Defines the commands about registered models: evaluate, promote, rollback."""

from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.options import Model, Output, TrackingUri, stoppable

app = typer.Typer()

TestData = Annotated[
    str, typer.Option(help="whose test patients: prepared data set, folder or URL, or a folder of images, any layout")
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
    from medgan.cli.registry_view import show_evaluated, show_evaluation
    from medgan.cli.terminal import Terminal
    from medgan.paths import find_place
    from medgan.registry.evaluation import Evaluation
    from medgan.workflows.evaluate import evaluate_model

    place = find_place(output, tracking_uri)
    with stoppable(), Terminal({Evaluation: show_evaluation}) as terminal:
        found = evaluate_model(model, data, place, terminal)
        show_evaluated(terminal.console, found, place)


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
    from medgan.cli.registry_view import show_promotion, show_record
    from medgan.cli.terminal import Terminal
    from medgan.paths import find_place
    from medgan.registry.promotion_record import PromotionRecord
    from medgan.workflows.promote import promote as judge_and_promote

    place = find_place(output, tracking_uri)
    with stoppable(), Terminal({PromotionRecord: show_record}) as terminal:
        found = judge_and_promote(model, data, rules.expanduser() if rules else None, place, terminal)
        show_promotion(terminal.console, found, place)
    if not found.passed:
        raise SystemExit(1)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="registered model, such as medgan-pet2ct")],
    output: Output = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make the version that the champion took over from the champion again; whoever follows the alias changes too."""
    from medgan.paths import find_place
    from medgan.workflows.promote import rollback as roll_back

    before, now = roll_back(name, find_place(output, tracking_uri))
    print(f"{name}: version {now} is champion again; version {before} was. Services that follow the alias change too.")
    print(f"medgan promote --model models:/{name}/{before} brings it back, by the evidence it has.")
