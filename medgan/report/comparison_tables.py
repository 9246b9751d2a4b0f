"""Writes `tables.md`, `.csv`, `.html` and `patients.csv`: methods side by side, with spreads, tests and failures."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medgan.data.atomic_write import write_atomically
from medgan.metrics.validation_metrics import direction
from medgan.report.cells import TESTED, long_rows, ordered, short_table
from medgan.report.comparison_statistics import Results, differences, score
from medgan.report.html_page import PAGE, embedded, section, table, wide_table
from medgan.report.narrative import facts_of, power, reading, table_conclusion

REASON_WIDTH = 100
"""Limits the letters of a failure's reason in Markdown; the other files have the whole reason."""
LONG = 50
"""Limits the letters of HTML that a cell keeps on one line."""
FIELDS = ("table", "method", "metric", "direction", "mean", "spread_seeds", "spread_patients", "p", "p_holm", "runs",
          "failed", "reasons")  # fmt: skip
"""Names the columns of `tables.csv`."""


def write_tables(results: Results, folder: Path, pictures: Sequence[Path] = ()) -> list[Path]:
    """Writes the results as Markdown, CSV and HTML.

    Args:
        folder: folder of the files, made if it does not exist; files of the same names are replaced.
        pictures: PNG files to embed in the page.

    Returns:
        Paths of `tables.md`, `tables.csv` (a line for each table, method and metric), `patients.csv` (a line for each
        method, seed and patient) and `tables.html`.
    """
    texts = {
        "tables.md": _markdown(results),
        "tables.csv": _csv(FIELDS, _metric_lines(results)),
        "patients.csv": _patients_csv(results),
        "tables.html": _html(results, pictures),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def _markdown(results: Results) -> str:
    lines = [f"## {_plain(results.title)}", ""]
    for name in results.tables:
        names, rows = short_table(results, name, reason_width=REASON_WIDTH)
        lines += [f"### {_plain(name)}", "", _line(map(_plain, names)), _line(["---"] * len(names))]
        lines += [
            _line(f"**{_plain(cell.text)}**" if cell.is_best else _plain(cell.text) for cell in row) for row in rows
        ]
        lines += ["", *(f"{_plain(sentence)}\n" for sentence in _sentences(results, name))]
    lines += [f"{_plain(sentence)}\n" for sentence in reading(results)]
    lines += [f"- {_plain(name)}: {_plain(fact)}" for name, fact in facts_of(results).items()]
    return "\n".join([*lines, "", "Images are synthetic, for research only, not for diagnosis.", ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Escapes Markdown's marks in a text and puts it on one line."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"([|*`])", r"\\\1", " ".join(text.split())))


def _html(results: Results, pictures: Sequence[Path]) -> str:
    sections = [table([], [(escape(name), escape(fact)) for name, fact in facts_of(results).items()])]
    for name in results.tables:
        names, rows = short_table(results, name)
        cells = [[f"<b>{escape(cell.text)}</b>" if cell.is_best else escape(cell.text) for cell in row] for row in rows]
        text = escape(" ".join(_sentences(results, name)))
        sections.append(section(escape(name), text, _unbroken_table(map(escape, names), cells)))
    sections.append(section("How to read it", escape(" ".join(reading(results)))))
    if pictures:
        shown = [embedded(picture.read_bytes(), alternative=escape(picture.stem)) for picture in pictures]
        sections.append(section("Pictures", "Slices of test patients; what a method made is synthetic.", *shown))
    sections += [_every_metric(results, name) for name in results.tables]
    return PAGE.format(title=escape(results.title), body="\n".join(sections))


def _every_metric(results: Results, name: str) -> str:
    text = f"Mean ± spread over seeds; spread over patients; adjusted p against {results.reference}."
    names = ["metric", *map(escape, results.tables[name])]
    cells = [[escape(cell).replace("\n", "<br>") for cell in row] for row in long_rows(results, name)]
    return section(f"{escape(name)}, every metric", escape(text), _unbroken_table(names, cells))


def _unbroken_table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table whose figures stay on one line; only a failure's reason has line breaks."""
    lines = []
    for row in rows:
        cells = (f'<td class="text">{cell}</td>' if len(cell) > LONG else f"<td>{cell}</td>" for cell in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return wide_table(list(names), lines, kind="trials")


def _sentences(results: Results, name: str) -> list[str]:
    """Returns what a table shows and what it cannot show, in sentences."""
    return [
        sentence for sentence in (table_conclusion(results, name, TESTED), power(results, name, TESTED)) if sentence
    ]


def _metric_lines(results: Results) -> Iterator[dict[str, Any]]:
    for name in results.tables:
        for metric in ordered(results.metrics(name)) or [TESTED]:
            tested = differences(results, name, metric)
            for method in results.rows(name):
                line = {
                    "table": name, "method": method.name, "metric": metric, "direction": direction(metric),
                    "runs": len(method.measured), "failed": len(method.runs) - len(method.measured),
                    "reasons": method.failures,
                }  # fmt: skip
                if found := score(method, metric):
                    line |= dict(zip(("mean", "spread_seeds", "spread_patients"), found, strict=True))
                if method.name in tested:
                    line |= {"p": tested[method.name].p, "p_holm": tested[method.name].adjusted}
                yield line


def _patients_csv(results: Results) -> str:
    lines = [
        {"method": method.name, "seed": run.seed, "patient": patient, **values}
        for method in results.methods.values()
        for run in method.measured
        for patient, values in (run.patients or {}).items()
    ]
    metrics = {name for line in lines for name in line} - {"method", "seed", "patient"}
    return _csv(("method", "seed", "patient", *ordered(metrics)), lines)


def _csv(fields: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
