"""What the pictures of a study have in common: colors, marks, axes in a goal's direction, legends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medgan.search.objectives import Goal

Drawing = Figure | str
"""A picture, or why there is none."""

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#8a929a"
"""Okabe and Ito's palette: told apart by color-blind readers too."""
KINDS: dict[str, dict[str, Any]] = {
    "pruned": {"marker": "o", "facecolors": "white", "edgecolors": GREY, "s": 26},
    "infeasible": {"marker": "^", "facecolors": "white", "edgecolors": ORANGE, "s": 38},
    "complete": {"marker": "o", "facecolors": BLUE, "edgecolors": "white", "linewidths": 0.6, "s": 38},
}
NO_VALUE = "No trial has finished with a value yet."


def new_figure(width: float, height: float) -> Figure:
    """Of that size in inches; belongs to no one, so that drawing in a thread disturbs nobody."""
    return Figure(figsize=(width, height), layout="constrained")


def plain(text: object) -> str:
    """Text in which matplotlib sees no formulas."""
    return str(text).replace("$", r"\$")


def drawn_range(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """All values but those so bad that they would hide the others: beyond three times the quartiles' distance."""
    lower, upper = np.percentile(values, [25, 75])
    reach = 3 * float(upper - lower) or float("inf")
    if goal.mode == "max":
        return max(min(values), float(lower) - reach), max(values)
    return min(values), min(max(values), float(upper) + reach)


def drawn(values: Sequence[float], goal: Goal) -> list[float]:
    """Values as they are drawn: those beyond the range at its edge."""
    return [float(value) for value in np.clip(values, *drawn_range(values, goal))]


def name_axis(label: Callable[[str], Any], values: Sequence[float], goal: Goal) -> None:
    """Names an axis after the goal, and says how many values are drawn at its edge."""
    low, high = drawn_range(values, goal)
    beyond = sum(not low <= value <= high for value in values)
    better = "higher" if goal.mode == "max" else "lower"
    label(f"{goal.metric}\n({better} is better{f'; {beyond} beyond the edge' if beyond else ''})")


def scatter(axis: Axes, across: Sequence[float], up: Sequence[float], kinds: Sequence[str]) -> None:
    """Points, each kind with its own mark."""
    for kind, style in KINDS.items():
        if chosen := [place for place, one in enumerate(kinds) if one == kind]:
            axis.scatter([across[one] for one in chosen], [up[one] for one in chosen], label=kind, zorder=3, **style)


def add_legend(figure: Figure, axes: Iterable[Axes], **renamed: str) -> None:
    """Above the panels, every label once, in other words where `renamed` has them."""
    found: dict[str, Any] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        found |= dict(zip(names, handles, strict=True))
    labels = [renamed.get(label, label) for label in found]
    figure.legend(list(found.values()), labels, loc="outside upper center", ncols=min(len(found), 7), frameon=False)
