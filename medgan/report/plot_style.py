"""Sets the style that all pictures of a study share: colors, marks, axes of a goal, legends."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medgan.search.objectives import Goal

Drawing = Figure | str
"""Stands for a picture, or for the reason why there is none."""

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
BLACK, GREY = "#1b1f23", "#8a929a"
"""Gives the palette of Okabe and Ito, which color-blind readers can distinguish."""
KINDS: dict[str, dict[str, Any]] = {
    "pruned": {"marker": "o", "facecolors": "white", "edgecolors": GREY, "s": 26},
    "infeasible": {"marker": "^", "facecolors": "white", "edgecolors": ORANGE, "s": 38},
    "complete": {"marker": "o", "facecolors": BLUE, "edgecolors": "white", "linewidths": 0.6, "s": 38},
}
DOTS_PER_INCH = 110
LETTER, HANDLE = 0.075, 0.65
"""Gives the width of a letter of a legend, and of the mark and the space beside a text, in inches."""
NO_VALUE = "No trial has finished with a value yet."


def new_figure(width: float, height: float) -> Figure:
    """Returns a figure of that size in inches, outside of pyplot's global state, so that threads can draw."""
    return Figure(figsize=(width, height), layout="constrained")


def png_of(figure: Figure) -> bytes:
    """Returns the figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return content.getvalue()


def plain(text: object) -> str:
    """Escapes a text, so that matplotlib finds no formulas in it."""
    return str(text).replace("$", r"\$")


def drawn_range(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """Returns the range of the values without the very bad ones: those beyond three times the quartiles' distance."""
    lower, upper = np.percentile(values, [25, 75])
    reach = 3 * float(upper - lower) or float("inf")
    if goal.mode == "max":
        return max(min(values), float(lower) - reach), max(values)
    return min(values), min(max(values), float(upper) + reach)


def drawn(values: Sequence[float], goal: Goal) -> list[float]:
    """Returns the values as they are drawn: those beyond the range at its edge."""
    return [float(value) for value in np.clip(values, *drawn_range(values, goal))]


def name_axis(label: Callable[[str], Any], values: Sequence[float], goal: Goal) -> None:
    """Names an axis after the goal, and says how many values are drawn at its edge."""
    low, high = drawn_range(values, goal)
    beyond = sum(not low <= value <= high for value in values)
    better = "higher" if goal.mode == "max" else "lower"
    label(f"{goal.metric}\n({better} is better{f'; {beyond} beyond the edge' if beyond else ''})")


def scatter(axis: Axes, across: Sequence[float], up: Sequence[float], kinds: Sequence[str]) -> None:
    """Draws points, each kind with its own mark."""
    for kind, style in KINDS.items():
        if chosen := [place for place, one in enumerate(kinds) if one == kind]:
            axis.scatter([across[one] for one in chosen], [up[one] for one in chosen], label=kind, zorder=3, **style)


def add_legend(figure: Figure, axes: Iterable[Axes], **renamed: str) -> None:
    """Adds a legend above the panels, with every label once; `renamed` replaces labels."""
    found: dict[str, Any] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        found |= dict(zip(names, handles, strict=True))
    labels = [renamed.get(label, label) for label in found]
    columns = legend_columns(labels, float(figure.get_figwidth()))
    figure.legend(list(found.values()), labels, loc="outside upper center", ncols=columns, frameon=False)


def legend_columns(labels: Sequence[str], width: float) -> int:
    """Returns how many columns of a legend fit into a width in inches: at most 7, and one if no more fit."""
    letters = [max(map(len, label.split("\n"))) for label in labels]
    for columns in range(min(len(labels), 7), 1, -1):
        parts = np.array_split(letters, columns)
        if sum(LETTER * max(part) + HANDLE for part in parts) <= width:
            return columns
    return 1
