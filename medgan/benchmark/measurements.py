"""What a benchmark found: rows with median, spread and ratio, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEADINGS = ("figure", "median", "quartiles", "unit", "ratio", "quartiles", "against", "wanted")
DIGITS = 4


class Spread(NamedTuple):
    """The middle and the quartiles of repeated measurements."""

    median: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Median, first and third quartile of at least one value."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return Spread(float(median), float(low), float(high))


@dataclass(frozen=True)
class Measurement:
    """A figure, measured or not.

    Attributes:
        part: of the benchmark.
        figure: what was measured.
        settings: under which settings.
        device: where, with the number of threads on a CPU.
        unit: of `value`.
        value: none where it was not measured; `note` then says why.
        ratio: how many times better than `against`, round by round, unless `note` says otherwise.
        against: the figure that the ratio compares with; that of the same settings.
        wanted: what the ratio or the value is to reach.
        note: what a reader must know besides.
    """

    part: str
    figure: str
    settings: str
    device: str
    unit: str = ""
    value: Spread | None = None
    ratio: Spread | None = None
    against: str = ""
    wanted: str = ""
    note: str = ""


def table_text(rows: Sequence[Measurement]) -> str:
    """A table for each part and its settings, columns aligned; notes below."""
    blocks = []
    for (part, settings, device), group in groupby(rows, key=lambda row: (row.part, row.settings, row.device)):
        members = list(group)
        cells = [HEADINGS, *(_cells(row) for row in members)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        shown = [place for place, width in enumerate(widths) if any(line[place] for line in cells[1:])]
        lines = ["  ".join(line[place].ljust(widths[place]) for place in shown).rstrip() for line in cells]
        notes = [f"{row.figure}: {row.note}" for row in members if row.note and row.value is not None]
        blocks.append("\n  ".join([f"{part}: {settings}; {device}", *lines, *notes]))
    return "\n\n".join(blocks)


def write_json(path: Path, rows: Sequence[Measurement], facts: dict[str, Any]) -> None:
    """The rows, and what they were measured with."""
    path.write_text(json.dumps({**facts, "rows": [_plain(row) for row in rows]}, indent=1) + "\n")


def _cells(row: Measurement) -> tuple[str, ...]:
    if row.value is None:
        return (row.figure, "not measured", row.note, "", "", "", row.against, row.wanted)
    ratio = ("", "") if row.ratio is None else (_number(row.ratio.median), _range(row.ratio))
    return (row.figure, _number(row.value.median), _range(row.value), row.unit, *ratio, row.against, row.wanted)


def _range(spread: Spread) -> str:
    return f"{_number(spread.low)} to {_number(spread.high)}"


def _number(value: float) -> str:
    return np.format_float_positional(value, precision=DIGITS, fractional=False, trim="-")


def _plain(row: Measurement) -> dict[str, Any]:
    named = {name: getattr(row, name) for name in ("value", "ratio")}
    return asdict(row) | {name: None if spread is None else spread._asdict() for name, spread in named.items()}
