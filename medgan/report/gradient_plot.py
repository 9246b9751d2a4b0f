"""Draws how strongly each term of the loss acts on the best trial's generator."""

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from medgan.losses.gradient_shares import HARDLY_ACTS
from medgan.report.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Drawing,
    add_legend,
    new_figure,
    plain,
)
from medgan.report.study_overview import Overview
from medgan.search.study import SHARES

SMALLEST = 0.001
"""Gives the lower end of the axis; smaller shares are drawn there."""


def draw_shares(overview: Overview) -> Drawing:
    """Draws each term's share of the gradient over the epochs of the best trial, a line a term."""
    best = overview.best
    if best is None:
        return "There is no best trial."
    shares: Mapping[str, Mapping[str, float]] = best.trial.user_attrs.get(SHARES) or {}
    epochs = sorted(map(int, shares))
    if not epochs:
        return f"The shares of the gradient were not recorded for trial {best.first_attempt}, the best one."
    figure = new_figure(10.5, 4.8)
    axis = figure.subplots()
    colors = itertools.cycle((BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK))
    styles = itertools.cycle(["-o"] * 7 + ["--s"] * 7)
    for term in dict.fromkeys(term for epoch in epochs for term in shares[str(epoch)]):
        own = [epoch for epoch in epochs if term in shares[str(epoch)]]
        heights = np.clip([shares[str(epoch)][term] for epoch in own], SMALLEST, 1)
        axis.plot(own, heights, next(styles), color=next(colors), linewidth=1.8, markersize=4, label=plain(term))
    axis.axhline(HARDLY_ACTS, color=GREY, linestyle="--", linewidth=1.2, label="1 %: below, a term hardly acts")
    axis.set_yscale("log")
    axis.set(ylim=(SMALLEST / 1.15, 1.15), xlabel="epoch", ylabel="share of the gradient")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axis.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axis.grid(alpha=0.25)
    axis.margins(x=0.02)
    add_legend(figure, [axis])
    return figure
