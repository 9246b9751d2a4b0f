"""Makes the rows and columns of the tables as text without markup; the spread decides the digits of a figure."""

import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from medgan.metrics.validation_metrics import direction
from medgan.report.comparison_statistics import MethodResults, Results, Score, differences, score
from medgan.report.narrative import metric_text, p_text

TESTED = "ssim"
"""Names the metric whose p is in the short tables; the CSV and the end of the page have the p of every metric."""
SHORT = ("ssim", "psnr", "mse", "vif", "uqi", "lpips", "mae_hu", "mae_hu_body", "mae_suv", "mae_suv_body")
"""Names the metrics of the short tables, if they were measured: the paper's and the physical ones."""


class Cell(NamedTuple):
    """Holds text that is not escaped yet, and whether it is the best of its column."""

    text: str
    is_best: bool = False


def short_table(results: Results, name: str, *, reason_width: int | None = None) -> tuple[list[str], list[list[Cell]]]:
    """Returns the headings, and a row for each method."""
    measured, rows = results.metrics(name), results.rows(name)
    metrics = [metric for metric in SHORT if metric in measured] or [TESTED]
    columns = [_column(rows, metric, places=_places(results, metric)) for metric in metrics]
    tested = differences(results, name, TESTED)
    cells = []
    for method, figures in zip(rows, zip(*columns, strict=True), strict=True):
        reason = textwrap.shorten(method.failures, reason_width) if reason_width else method.failures
        if not method.measured:
            figures = (Cell(reason or "no run"), *[Cell("-")] * (len(metrics) - 1))
        p = p_text(tested[method.name].adjusted) if method.name in tested else "-"
        cells.append([Cell(method.name), *figures, Cell(_seen(method)), Cell(p), Cell(_runs(method, reason))])
    headings = [f"{metric_text(metric)} {_arrow(metric)}" for metric in metrics]
    p_heading = f"p, {metric_text(TESTED)} against {results.reference}"
    return ["method", *headings, "images seen (thousands)", p_heading, "runs"], cells


def _column(rows: Sequence[MethodResults], metric: str, *, places: int) -> list[Cell]:
    """Returns a cell for each method; marks the best trained method, and all with the same rounded figure."""
    scores = [score(method, metric) for method in rows]
    shown = [
        round(one.mean, places) if one and method.trained else None for one, method in zip(scores, rows, strict=True)
    ]
    best = (max if direction(metric) == "max" else min)((one for one in shown if one is not None), default=None)
    return [
        Cell(_figure(one, places), best is not None and own == best) for one, own in zip(scores, shown, strict=True)
    ]


def _places(results: Results, metric: str) -> int:
    """Returns the decimals that show two digits of the median spread over seeds, or over patients without one.

    A method in several tables has the same figure in all of them.
    """
    scores = [found for method in results.methods.values() if (found := score(method, metric))]
    spreads = [one.over_seeds for one in scores if one.over_seeds]
    spreads = spreads or [one.over_patients for one in scores if one.over_patients]
    if not spreads:
        return 3
    return min(max(1 - math.floor(math.log10(statistics.median(spreads))), 0), 6)


def _figure(found: Score | None, places: int) -> str:
    if found is None:
        return "-"
    spread = "" if found.over_seeds is None else f" ± {found.over_seeds:.{places}f}"
    return f"{found.mean:.{places}f}{spread}"


def _arrow(metric: str) -> str:
    return "→ 0" if metric.startswith("bias") else "↑" if direction(metric) == "max" else "↓"


def _seen(method: MethodResults) -> str:
    if not method.trained or not method.measured:
        return "-"
    return f"{statistics.fmean(run.slices_seen for run in method.measured) / 1000:.1f}"


def _runs(method: MethodResults, reason: str) -> str:
    if not method.trained and method.measured:
        return "-"
    text = f"{len(method.measured)} of {len(method.runs)} runs"
    return f"{text}; {reason}" if method.measured and reason else text


def long_rows(results: Results, name: str) -> list[list[str]]:
    """Returns a row for each metric, with a cell of several lines for each method: figure, spread, adjusted p."""
    lines = []
    for metric in ordered(results.metrics(name)):
        scores = [score(method, metric) for method in results.rows(name)]
        places, tested = _places(results, metric), differences(results, name, metric)
        cells = [f"{metric_text(metric)} {_arrow(metric)}"]
        for method, one in zip(results.tables[name], scores, strict=True):
            parts = [_figure(one, places)]
            if one and one.over_patients is not None:
                parts.append(f"patients {one.over_patients:.{places}f}")
            if method in tested:
                parts.append(f"p {p_text(tested[method].adjusted)}")
            cells.append("\n".join(parts))
        lines.append(cells)
    return lines


def ordered(metrics: Iterable[str]) -> list[str]:
    """Returns the short tables' metrics first, then the others by name."""
    return sorted(metrics, key=lambda metric: (SHORT.index(metric) if metric in SHORT else len(SHORT), metric))
