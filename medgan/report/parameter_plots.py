"""Draws how the goals depend on the settings: one panel for each setting, and all settings side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from medgan.report.plot_style import (
    NO_VALUE,
    RED,
    Drawing,
    add_legend,
    drawn,
    drawn_range,
    name_axis,
    new_figure,
    plain,
    scatter,
)
from medgan.report.study_overview import Overview, Scored, number_text, short_names
from medgan.search.objectives import Goal

ABSENT = -0.16
"""Gives the height at which lines pass the axis of a setting that did not move in their trial."""
COLUMNS = 4
STAR: dict[str, Any] = {"marker": "*", "s": 190, "facecolors": "#f0e442", "edgecolors": "black", "zorder": 5}
LOG_MARGIN = 1.15
"""Gives the room beside the ends of a logarithmic axis, as a factor."""


def draw_slices_of(overview: Overview) -> Drawing:
    """Draws a panel for each setting: the first goal over the setting's values."""
    scored, settings = overview.scored, overview.settings
    if not scored or not settings:
        return NO_VALUE
    values = [one.values[0] for one in scored]
    heights = dict(zip((one.first_attempt for one in scored), drawn(values, overview.goals[0]), strict=True))
    columns, short = min(COLUMNS, len(settings)), short_names(settings)
    rows = math.ceil(len(settings) / columns)
    figure = new_figure(max(2.75 * columns, 5.5), 0.8 + 2.7 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis, name in zip(axes.flat, settings, strict=False):
        _setting_panel(axis, name, overview, heights)
        axis.set_xlabel(short[name])
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(settings) :]:
        axis.remove()
    for row in axes:
        name_axis(row[0].set_ylabel, values, overview.goals[0])
    add_legend(figure, figure.axes)
    return figure


def _setting_panel(axis: Axes, name: str, overview: Overview, heights: Mapping[int, float]) -> None:
    """Draws the trials that have the setting at their heights; a star marks the best trial."""
    having = [one for one in overview.scored if name in one.trial.params]
    places = _places(axis, overview.settings[name], [one.trial.params[name] for one in having])
    scatter(axis, places, [heights[one.first_attempt] for one in having], [one.kind for one in having])
    for place, one in zip(places, having, strict=True):
        if one is overview.best:
            axis.scatter(place, heights[one.first_attempt], label=f"trial {one.first_attempt}, best", **STAR)


def _places(axis: Axes, moves: BaseDistribution, values: Sequence[Any]) -> list[float]:
    """Prepares the axis for the values and returns their places on it; adds a small jitter to those of a choice."""
    if isinstance(moves, CategoricalDistribution):
        axis.set_xticks(range(len(moves.choices)), [plain(choice) for choice in moves.choices])
        axis.set_xlim(-0.6, len(moves.choices) - 0.4)
        spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(values))
        return [moves.choices.index(value) + float(apart) for value, apart in zip(values, spread, strict=True)]
    if isinstance(moves, FloatDistribution | IntDistribution) and moves.log:
        axis.set_xscale("log")
        axis.set_xlim(moves.low / LOG_MARGIN, moves.high * LOG_MARGIN)
        axis.xaxis.set_minor_locator(NullLocator())
        if moves.high / moves.low < 100:  # too few powers of ten to read a value from
            axis.set_xticks([moves.low, moves.high], [number_text(moves.low), number_text(moves.high)])
    elif isinstance(moves, IntDistribution):
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return list(values)


@dataclass(frozen=True)
class ValueAxis:
    """Describes one of the parallel axes."""

    name: str
    low: float
    high: float
    is_log: bool = False
    choices: tuple[Any, ...] = ()
    is_whole: bool = False

    @classmethod
    def of_setting(cls, name: str, moves: BaseDistribution) -> Self:
        """Returns the axis of a setting, over the whole range in which it moves."""
        if isinstance(moves, CategoricalDistribution):
            return cls(name, -0.3, len(moves.choices) - 0.7, choices=tuple(moves.choices))
        assert isinstance(moves, FloatDistribution | IntDistribution), "Optuna knows no other"
        return cls(name, moves.low, moves.high, is_log=moves.log, is_whole=isinstance(moves, IntDistribution))

    @classmethod
    def of_goal(cls, goal: Goal, values: Sequence[float]) -> Self:
        """Returns the axis of a goal, over the range of the reached values."""
        return cls(goal.metric, *drawn_range(values, goal))

    def place(self, value: Any) -> float:
        """Returns the height of a value: 0 at the bottom, 1 at the top."""
        number = self.choices.index(value) if self.choices else value
        low, high, number = (math.log(one) if self.is_log else one for one in (self.low, self.high, number))
        return min(max((number - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Returns the height and text of each tick."""
        if self.choices:
            return [(self.place(choice), plain(choice)) for choice in self.choices]
        locator = LogLocator(numticks=6) if self.is_log else MaxNLocator(5, integer=self.is_whole)
        inside = [float(value) for value in locator.tick_values(self.low, self.high) if self.low <= value <= self.high]
        values = inside if len(inside) > 1 else [self.low, self.high][: 1 + (self.high > self.low)]
        return [(self.place(value), number_text(value)) for value in values]


def draw_parallel(overview: Overview) -> Drawing:
    """Draws an axis for each setting and goal, and a line for each trial, darker for a better rank."""
    scored, settings = overview.scored, overview.settings
    if not scored or not settings:
        return NO_VALUE
    scales, goals = _value_axes(overview)
    ranked = overview.ranked[::-1]
    lines = [[*_heights(one, settings, scales), *map(ValueAxis.place, goals, one.values)] for one in ranked]
    figure = new_figure(min(max(1.45 * (len(scales) + len(goals)), 6), 12), 5.2)
    axis = figure.subplots()
    axis.add_collection(_trial_lines(ranked, lines, best=overview.best))
    for place, scale in enumerate((*scales, *goals)):
        _parallel_axis(axis, place, scale, absent=any(line[place] == ABSENT for line in lines))
    names = [scale.name for scale in (*scales, *goals)]
    axis.set_xticks(range(len(names)), names)
    if max(map(len, names)) > 15 or len(names) > 8:
        axis.set_xticks(range(len(names)), names, rotation=25, ha="left")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set(xlim=(-0.35, len(names) - 0.55), ylim=(min(map(min, lines)) - 0.06, 1.04), yticks=[])
    axis.spines[:].set_visible(False)
    return figure


def _value_axes(overview: Overview) -> tuple[list[ValueAxis], list[ValueAxis]]:
    """Returns the axes of the settings, and those of the goals."""
    scored, short = overview.scored, short_names(overview.settings)
    scales = [ValueAxis.of_setting(short[name], moves) for name, moves in overview.settings.items()]
    goals = [ValueAxis.of_goal(goal, [one.values[at] for one in scored]) for at, goal in enumerate(overview.goals)]
    return scales, goals


def _trial_lines(ranked: Sequence[Scored], lines: Sequence[Sequence[float]], *, best: Scored | None) -> LineCollection:
    """Returns a line for each trial: wide and red for the best, dotted for an infeasible one."""
    shades = zip(ranked, _shades(len(lines)), strict=True)
    return LineCollection(
        [np.column_stack([range(len(line)), line]) for line in lines],
        colors=[RED if one is best else shade for one, shade in shades],
        linewidths=[3.0 if one is best else 1.3 for one in ranked],
        linestyles=["solid" if one.is_feasible else "dotted" for one in ranked],
    )


def _shades(count: int) -> list[Any]:
    """Returns a color for each rank, the worst first; the worse of many lines fade, so that the better stay visible."""
    ranks = np.linspace(0.08, 1.0, count)
    shades = colormaps["cividis_r"](ranks)
    shades[:, 3] = 0.9 if count <= 100 else 0.05 + 0.6 * ranks**6
    return [tuple(shade) for shade in shades]


def _heights(one: Scored, settings: dict[str, BaseDistribution], scales: Sequence[ValueAxis]) -> list[float]:
    params = one.trial.params
    return [
        scale.place(params[name]) if name in params else ABSENT for name, scale in zip(settings, scales, strict=True)
    ]


def _parallel_axis(axis: Axes, place: int, scale: ValueAxis, *, absent: bool) -> None:
    axis.plot([place, place], [0, 1], color="#1b1f23", linewidth=1, zorder=3)
    ticks = [*scale.ticks, *([(ABSENT, "not moved")] if absent else [])]
    for height, text in ticks:
        axis.plot([place - 0.02, place], [height] * 2, color="#1b1f23", linewidth=1, zorder=3)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
        axis.text(place - 0.04, height, text, ha="right", va="center", fontsize=9, bbox=box, zorder=4)
