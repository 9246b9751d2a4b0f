"""Draws the trials of a study: history, importances, Pareto front and learning curves."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from medgan.report.importances import Importances
from medgan.report.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    NO_VALUE,
    ORANGE,
    PURPLE,
    RED,
    Drawing,
    add_legend,
    drawn,
    drawn_range,
    name_axis,
    new_figure,
    scatter,
)
from medgan.report.study_overview import Overview, Scored, epochs_of, short_names
from medgan.search.study import first_attempt_of, state_of

FAILED = {"diverged": ("x", RED), "out of memory": ("P", PURPLE), "other failure": ("|", BLACK)}
TEXT_BOX = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}


def draw_history(overview: Overview) -> Drawing:
    """Draws a panel for each goal: the value of every finished trial, the best so far, and the failed trials."""
    goals, scored = overview.goals, overview.scored
    if not scored:
        return NO_VALUE
    figure = new_figure(10.5, 1.3 + 2.9 * len(goals))
    axes = figure.subplots(len(goals), 1, squeeze=False, sharex=True)[:, 0]
    for place, (axis, goal) in enumerate(zip(axes, goals, strict=True)):
        values = [one.values[place] for one in scored]
        scatter(axis, [one.first_attempt for one in scored], drawn(values, goal), [one.kind for one in scored])
        name_axis(axis.set_ylabel, values, goal)
        _best_so_far(axis, overview, place)
        _mark_failures(axis, overview)
        axis.grid(alpha=0.25)
    axes[-1].set_xlabel("trial")
    axes[-1].xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    add_legend(figure, axes)
    return figure


def _best_so_far(axis: Axes, overview: Overview, place: int) -> None:
    eligible = [one for one in overview.scored if one.trial.number in overview.eligible]
    if not eligible:
        return
    accumulate = np.maximum if overview.goals[place].mode == "max" else np.minimum
    best = accumulate.accumulate([one.values[place] for one in [*eligible, eligible[-1]]])
    first_attempts = [*(one.first_attempt for one in eligible), overview.scored[-1].first_attempt]
    axis.plot(first_attempts, best, drawstyle="steps-post", color="black", linewidth=1.4, label="best so far")


def _mark_failures(axis: Axes, overview: Overview) -> None:
    """Marks the failed trials at the bottom of the axis, as they have no value."""
    for name, (marker, color) in FAILED.items():
        first_attempts = [first_attempt_of(trial) for trial in overview.trials if _failure(state_of(trial)) == name]
        if first_attempts:
            axis.plot(
                first_attempts, [0.0] * len(first_attempts), marker, color=color, markersize=8, label=name,
                transform=axis.get_xaxis_transform(), clip_on=False, zorder=5,
            )  # fmt: skip


def _failure(state: str) -> str | None:
    name = state.replace("_", " ")
    return name if name in FAILED else "other failure" if state in ("input", "error", "restarts") else None


def draw_importances(overview: Overview) -> Drawing:
    """Draws a bar for each setting and goal, and a line at the floor of each goal; bars up to the floor are grey."""
    found = overview.importances
    if isinstance(found, str):
        return found
    short, several = short_names(overview.settings), len(found) > 1
    names = sorted(short, key=lambda name: found[0].by_setting.get(name, 0.0))
    figure = new_figure(10.5, 1.5 + (0.26 * len(found) + 0.16) * len(names))
    axis, height = figure.subplots(), 0.8 / len(found)
    colors = itertools.cycle((BLUE, ORANGE, GREEN, PURPLE))
    for place, (goal, color, of_goal) in enumerate(zip(overview.goals, colors, found, strict=False)):
        rows = np.arange(len(names)) - height * (place - (len(found) - 1) / 2)
        at = dict(zip(names, rows.tolist(), strict=True))
        _importance_bars(axis, at, of_goal, height=0.88 * height, color=color, outlined=several)
        axis.axvline(min(of_goal.floor, 1.0), color=color if several else BLACK, linestyle="--", linewidth=1.4)
        axis.fill_between([], [], color=color, label=goal.metric if several else "above chance")
    axis.fill_between([], [], color=GREY, label="cannot be told from chance")
    axis.plot([], [], color=BLACK, linestyle="--", label="95 % of shuffled studies stay below (approximate)")
    axis.set_yticks(range(len(names)), [short[name] for name in names])
    farthest = max(max([*one.by_setting.values(), min(one.floor, 1.0)]) for one in found)
    axis.set(xlabel="importance (all settings together: 1)", xlim=(0, 1.1 * (farthest or 1.0)))
    axis.spines[["top", "right"]].set_visible(False)
    add_legend(figure, [axis])
    return figure


def _importance_bars(
    axis: Axes, rows: Mapping[str, float], found: Importances, *, height: float, color: str, outlined: bool
) -> None:
    """Draws the bars of a goal at the rows of the settings; an outline in the goal's color tells grey bars apart."""
    widths = [found.by_setting.get(name, 0.0) for name in rows]
    fills = [color if width > found.floor else GREY for width in widths]
    edges: dict[str, Any] = {"edgecolor": color, "linewidth": 1.6} if outlined else {}
    bars = axis.barh(list(rows.values()), widths, height=height, color=fills, **edges)
    axis.bar_label(bars, [f"{width:.2f}" for width in widths], padding=4, fontsize=9, bbox=TEXT_BOX, zorder=4)


def draw_front(overview: Overview) -> Drawing:
    """Draws a panel for each pair of goals: the Pareto front, the other trials and the infeasible ones."""
    complete = [one for one in overview.scored if one.trial.state == TrialState.COMPLETE]
    if not complete:
        return "No trial has completed yet."
    pairs = list(itertools.combinations(range(len(overview.goals)), 2))
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(10.5 if columns > 1 else 8, 0.8 + 4.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(pairs) :]:
        axis.remove()
    for axis, pair in zip(axes.flat, pairs, strict=False):
        _front_panel(axis, overview, complete, pair)
    add_legend(figure, figure.axes, infeasible="infeasible: misses\n" + "\n".join(overview.limits))
    return figure


def _front_panel(axis: Axes, overview: Overview, complete: Sequence[Scored], pair: tuple[int, int]) -> None:
    first_attempts = set(map(first_attempt_of, overview.front))
    values = [[one.values[place] for one in complete] for place in pair]
    goals = [overview.goals[place] for place in pair]
    across, up = (drawn(some, goal) for some, goal in zip(values, goals, strict=True))
    scatter(axis, across, up, [one.kind for one in complete])
    name_axis(axis.set_xlabel, values[0], goals[0])
    name_axis(axis.set_ylabel, values[1], goals[1])
    points = sorted(
        (x, y, one.first_attempt)
        for x, y, one in zip(across, up, complete, strict=True)
        if one.first_attempt in first_attempts
    )
    _front_line(axis, points, line="-" if len(overview.goals) == 2 else "")
    axis.grid(alpha=0.25)


def _front_line(axis: Axes, points: Sequence[tuple[float, float, int]], *, line: str) -> None:
    axis.plot(
        [point[0] for point in points], [point[1] for point in points], color=GREEN, linewidth=1.2, linestyle=line,
        marker="D", markersize=7, label="Pareto front", zorder=4,
    )  # fmt: skip
    for x, y, first_attempt in points[:: max(1, len(points) // 12)]:
        axis.annotate(str(first_attempt), (x, y), xytext=(6, 5), textcoords="offset points", fontsize=9, zorder=5)


def _curves(overview: Overview) -> dict[int, tuple[FrozenTrial, dict[int, float]]]:
    """Returns first attempt -> trial, and epoch -> finite value of the first goal."""
    curves = {}
    for trial in overview.trials:  # a later attempt repeats what an earlier one recorded
        rows = {epoch: row[0] for epoch, row in epochs_of(trial).items() if np.isfinite(row[0])}
        if rows:
            curves[first_attempt_of(trial)] = (trial, rows)
    return curves


def draw_curves(overview: Overview) -> Drawing:
    """Draws the first goal over the epochs, one line a trial: the best stands out, a diverged one ends in a cross."""
    goal, curves = overview.goals[0], _curves(overview)
    if not curves:
        return "No epoch has ended yet."
    everything = [value for _, rows in curves.values() for value in rows.values()]
    best = overview.best.first_attempt if overview.best else None
    figure = new_figure(10.5, 4.8)
    axis = figure.subplots()
    low, high = drawn_range(everything, goal)
    faint = 0.75 if len(curves) <= 60 else 0.3
    for first_attempt, (trial, rows) in curves.items():
        epochs, values = list(rows), np.clip(list(rows.values()), low, high)
        if first_attempt == best:
            name = f"trial {first_attempt}, best"
            axis.plot(epochs, values, "-o", color=BLUE, linewidth=2.4, markersize=4, zorder=4, label=name)
        else:
            name = "other trials"
            axis.plot(epochs, values, "-o", color=GREY, linewidth=1, markersize=2, alpha=faint, label=name)
        if state_of(trial) == "diverged":
            axis.plot(epochs[-1:], values[-1:], "x", color=RED, markersize=9, zorder=5, label="diverged after this")
    name_axis(axis.set_ylabel, everything, goal)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axis.grid(alpha=0.25)
    axis.margins(x=0.02)
    add_legend(figure, [axis])
    return figure
