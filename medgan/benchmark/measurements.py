"""Holds the results of a benchmark: rows with median, spread and ratio, as text and as JSON."""

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
    """Holds the median and the quartiles of repeated measurements."""

    median: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Returns the median, first and third quartile of at least one value."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return Spread(float(median), float(low), float(high))


@dataclass(frozen=True)
class Measurement:
    """Holds a figure, measured or not.

    Attributes:
        device: device, with the number of threads on a CPU.
        value: measured value; None where it was not measured, and `note` then says why.
        ratio: how many times better than `against`, round by round, unless `note` says otherwise.
        against: figure with the same settings that the ratio compares to.
        wanted: goal for the ratio or the value.
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
    """Returns a table with aligned columns for each part and its settings, with notes below."""
    blocks = []
    for (part, settings, device), group in groupby(rows, key=lambda row: (row.part, row.settings, row.device)):
        members = list(group)
        notes = [f"{row.figure}: {row.note}" for row in members if row.note and row.value is not None]
        blocks.append("\n  ".join([f"{part}: {settings}; {device}", *_aligned(members), *notes]))
    return "\n\n".join(blocks)


def _aligned(rows: Sequence[Measurement]) -> list[str]:
    columns = [column for column in zip(HEADINGS, *(_cells(row) for row in rows), strict=True) if any(column[1:])]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]


def write_json(path: Path, rows: Sequence[Measurement], facts: dict[str, Any]) -> None:
    """Writes the rows as JSON, with the facts about their measurement."""
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
