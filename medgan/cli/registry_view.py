"""Shows evaluations and promotions of registered models."""

from rich.console import Console
from rich.table import Table

from medgan.cli.summary import UNITS
from medgan.metrics.validation_metrics import Patients, overall_means, overall_spread
from medgan.paths import Place, redacted
from medgan.registry.evaluation import Evaluation
from medgan.registry.promotion_record import PromotionRecord
from medgan.report.promotion_report import FILE_NAME
from medgan.workflows.evaluate import EvaluatedModel, ranked, selected
from medgan.workflows.promote import Promotion


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Prints the metrics of every test patient, and what a slice costs."""
    patients = evaluation.patients
    means, spread = selected(overall_means(patients)), overall_spread(patients)
    table = Table("test patient", "slices", *(name + UNITS.get(name, "") for name in means), box=None, pad_edge=False)
    for patient in ranked(evaluation):
        cells = (f"{patients[patient][name]:.4g}" if name in patients[patient] else "-" for name in means)
        table.add_row(patient, str(evaluation.slices[patient]), *cells)
    table.add_section()
    table.add_row("mean", "", *(f"{value:.4g}" for value in means.values()))
    table.add_row("spread", "", *(f"{spread[name]:.2g}" for name in means))
    console.print()
    console.print(table)
    cost = f"{evaluation.latency_ms:.3g} ms a slice, {evaluation.memory_gb:.2g} GB, in batches of 1"
    console.print(f"\n{cost}, on {evaluation.device}")


def show_evaluated(console: Console, found: EvaluatedModel, place: Place) -> None:
    """Prints where an evaluation is kept."""
    name, version = found.evaluation.name, found.evaluation.version
    uri = redacted(place.tracking_uri)
    console.print(f"MLflow: {found.artifacts} on the run of {name} version {version} in {uri}", soft_wrap=True)
    console.print("Synthetic images, for research only; not for diagnosis.")


def show_record(console: Console, record: PromotionRecord) -> None:
    """Prints the test metrics of candidate and champion, and the result of each rule."""
    candidate, champion, verdict = record.candidate, record.champion, record.verdict
    console.print(f"\n{len(candidate.patients)} held-out test patients; mean and spread over them")
    names = [f"version {candidate.version}", *([f"champion {champion.version}"] if champion else [])]
    table = Table("test metric", *names, box=None, pad_edge=False)
    columns = [_column(one.patients) for one in (candidate, champion) if one]
    for name in columns[0]:
        table.add_row(name + UNITS.get(name, ""), *(column.get(name, "-") for column in columns))
    console.print(table)
    console.print()
    for reason in verdict.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)


def _column(patients: Patients) -> dict[str, str]:
    means, spread = overall_means(patients), overall_spread(patients)
    return {name: f"{value:.4g} ± {spread[name]:.2g}" for name, value in means.items()}


def show_promotion(console: Console, found: Promotion, place: Place) -> None:
    """Prints whether a candidate was promoted, and where the evidence is."""
    if found.record is None:
        console.print(f"{found.name} version {found.version} is champion already.")
        return
    champion = found.record.champion
    if found.passed:
        before = f"; version {champion.version} is previous" if champion else ""
        console.print(f"\nPromoted: {found.name} version {found.version} is champion{before}.")
    else:
        stays = f"version {champion.version} stays champion" if champion else "there is no champion"
        console.print(f"\nNot promoted: {stays}.")
    evidence = f"Evidence: {found.artifacts}/{FILE_NAME}, an artifact of the run of version {found.version}"
    console.print(f"{evidence} in {redacted(place.tracking_uri)}", soft_wrap=True)
    console.print("For research only; not for diagnosis.")
