"""Says in sentences what the numbers of a comparison support."""

import statistics
from collections.abc import Mapping, Sequence

from medgan.metrics.validation_metrics import direction
from medgan.registry.gates import DECIMALS, EXACT
from medgan.report.comparison_statistics import (
    Difference,
    MethodResults,
    Results,
    differences,
    goodness,
    score,
    smallest_p,
)
from medgan.report.study_overview import number_text

ALPHA = 0.05
NAMES = {
    "ssim": "SSIM", "psnr": "PSNR (dB)", "mse": "MSE", "vif": "VIF", "uqi": "UQI", "lpips": "LPIPS",
    "ms_ssim": "MS-SSIM",
}  # fmt: skip
"""Gives the texts of the metrics without a physical unit, in the paper's order."""


def metric_text(metric: str) -> str:
    """Returns a metric's name for a person, such as "MAE body (HU)" for mae_hu_body."""
    whole = metric.removesuffix("_body")
    place = " body" if metric != whole else ""
    if whole in NAMES:
        name, _, unit = NAMES[whole].partition(" ")
        return f"{name}{place} {unit}".strip()
    name, unit, *tissue = whole.split("_")
    return " ".join([{"mae": "MAE"}.get(name, name) + place, *tissue, f"({unit.upper()})"])


def p_text(p: float) -> str:
    """Returns p with two digits, or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def table_conclusion(results: Results, table: str, metric: str = "ssim") -> str:
    """Says which trained method of a table leads, the reference's rank, and which differences exceed chance."""
    rows = results.rows(table)
    scores = {method.name: value for method in rows if (value := _strength(method, metric)) is not None}
    trained = {method.name: scores[method.name] for method in rows if method.trained and method.name in scores}
    if not trained:
        return f"No trained method of {table} has a result in {_short_text(metric)}."
    parts = _ranking(results, table, metric, scores=scores, trained=trained)
    if failed := [one.name for one in rows if not one.measured and one.name != results.reference]:
        parts.append(f"no result from {listed(failed)}")
    return f"{'; '.join([*parts, _tested(results, table, metric)])}."


def _ranking(
    results: Results, table: str, metric: str, *, scores: Mapping[str, float], trained: Mapping[str, float]
) -> list[str]:
    """Says which trained method leads, the reference's rank behind it, and which untrained methods are better."""
    highest, reference = max(trained.values()), results.reference
    best = [method for method, value in trained.items() if value == highest]
    most = "bias nearest to 0" if metric.startswith("bias") else f"{_superlative(metric)} {_short_text(metric)}"
    text = f"{listed(best)} {'has' if len(best) == 1 else 'have'} the {most} of the trained methods of {table}"
    parts = [f"{text} ({_figure(results, best[0], metric)})"]
    if reference in trained and reference not in best:
        rank = 1 + sum(value > trained[reference] for value in trained.values())
        parts.append(f"{reference} is {_ordinal(rank)} of {len(trained)} ({_figure(results, reference, metric)})")
    return parts + [
        f"{other}, which is not trained, is better ({_figure(results, other, metric)})"
        for other, value in scores.items()
        if other not in trained and value > highest
    ]


def power(results: Results, table: str, metric: str = "ssim") -> str:
    """Says in a sentence what so few patients can show; returns an empty text if nothing was tested."""
    found = differences(results, table, metric)
    if not found:
        return ""
    rows, patients = len(found), min(one.patients for one in found.values())
    text = f"The smallest p that {_patients(patients)} can show is {p_text(smallest_p(patients))}"
    text += f", adjusted for {rows} rows {p_text(_smallest_adjusted(found))}" if rows > 1 else ""
    if _smallest_adjusted(found) < ALPHA:
        return f"{text}."
    needed = next(count for count in range(patients, EXACT + 1) if rows * smallest_p(count) < ALPHA)
    return f"{text}: whatever the methods do, none can fall below {ALPHA:g}; that takes {needed} patients."


def reading(results: Results) -> list[str]:
    """Says how to read the figures: a sentence each on the budget, the spread and the test."""
    trained = [method for method in results.methods.values() if method.trained]
    runs = [run for method in trained for run in method.measured]
    if not runs:
        return []
    minutes, seen = [run.minutes for run in runs], [run.slices_seen / 1000 for run in runs]
    seeds = sorted({len(method.measured) for method in trained} - {0})
    many = f"{' or '.join(map(str, seeds))} seeds"
    spread = "there is one seed, so no spread" if seeds == [1] else f"± is the standard deviation over {many}"
    return [
        f"Each of the {len(runs)} trainings took {_range(minutes)} minutes, validation included, in which "
        f"{_range(seen)} thousand images updated the generator.",
        f"A figure is the mean over {_patients(len(runs[0].patients or {}))} of the mean over their slices; "
        f"{spread}; bold is the best of the trained methods. MSE is on grey levels of 0 to 255.",
        f"p is that of a two-sided exact sign-flip test of the patients' differences to {results.reference}, each "
        "averaged over the seeds, adjusted for the rows of the table (Holm), not for its metrics: p speaks of other "
        "patients, the spread over seeds of other trainings.",
    ]


def facts_of(results: Results) -> dict[str, str]:
    """Returns the facts of the comparison, and the number of test patients with the smallest p they can show."""
    patients = next((len(run.patients or {}) for one in results.methods.values() for run in one.measured), 0)
    if not patients:
        return dict(results.facts)
    least = f"{patients}; a difference that all of them share shows p = {p_text(smallest_p(patients))}"
    exact = f" (2/2^{patients})" if patients <= EXACT else ""
    return {**results.facts, "test patients": f"{least}{exact}"}


def listed(names: Sequence[str]) -> str:
    """Joins names for a sentence: "a, b and c"."""
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def _tested(results: Results, table: str, metric: str) -> str:
    """Says which differences to the reference exceed chance, or why nothing was tested."""
    reference, found = results.reference, differences(results, table, metric)
    if reference not in results.tables[table]:
        return f"nothing was tested, as {reference} is not in this table"
    if not results.methods[reference].measured:
        return f"nothing was tested, as {reference} has no result ({results.methods[reference].failures})"
    if not found:
        return f"nothing was tested, as nothing else was measured beside {reference}"
    better, worse, unclear = _compared(results, found, metric)
    parts = [f"{reference} is better than {listed(worse)} by more than chance explains"] if worse else []
    if better:
        be = "is" if len(better) == 1 else "are"
        parts.append(f"{listed(better)} {be} better than {reference} by more than chance explains")
    if unclear:
        difference = "difference" if len(unclear) == 1 else "differences"
        parts.append(f"the {difference} of {listed(unclear)} to {reference} cannot be told from chance")
    patients = _patients(min(one.patients for one in found.values()))
    few = ", too few for any" if _smallest_adjusted(found) >= ALPHA else ""
    return f"{', '.join(parts)} (Holm-adjusted p < {ALPHA:g} asked for; {patients}{few})"


def _compared(results: Results, found: Mapping[str, Difference], metric: str) -> tuple[list[str], list[str], list[str]]:
    """Returns the methods that are better than the reference, worse, and not different beyond chance."""
    ours = _strength(results.methods[results.reference], metric) or 0.0
    better, worse, unclear = [], [], []
    for name, one in found.items():
        if one.adjusted >= ALPHA:
            unclear.append(name)
        elif (_strength(results.methods[name], metric) or 0.0) > ours:
            better.append(name)
        else:
            worse.append(name)
    return better, worse, unclear


def _smallest_adjusted(found: Mapping[str, Difference]) -> float:
    return min(1.0, len(found) * smallest_p(min(one.patients for one in found.values())))


def _strength(method: MethodResults, metric: str) -> float | None:
    """Returns the mean over patients of the compared values: more is better; rounding removes floating-point noise."""
    values = goodness(method, metric)
    return round(statistics.fmean(values.values()), DECIMALS) if values else None


def _figure(results: Results, name: str, metric: str) -> str:
    found = score(results.methods[name], metric)
    assert found is not None, "it was ranked"
    return number_text(found.mean)


def _short_text(metric: str) -> str:
    return metric_text(metric).partition(" (")[0]


def _superlative(metric: str) -> str:
    return "highest" if direction(metric) == "max" else "lowest"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
