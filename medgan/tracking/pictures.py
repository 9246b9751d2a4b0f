"""Pictures of fixed slices: source, output, target and error, with the target's unit on the colour bar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medgan.tasks import Image

SHOWN = {"HU": ((-300.0, 400.0), 400.0)}
"""Unit -> window a reader expects, and the error at which the colours end; other units use the task's own window."""


def draw_slices(arrays: Path, picture: Path, *, title: str, source: Image, target: Image) -> None:
    """Draws what `medgan.engine.evaluate.fixed_pictures` stored; DICOM rows run down the page.

    Args:
        arrays: .npz with source, output, target and titles.
        picture: PNG to write.
        title: above everything.
        source: names the source's column.
        target: names unit and window of the others.
    """
    with np.load(arrays, allow_pickle=False) as stored:
        columns = [stored["source"], stored["output"], stored["target"], stored["output"] - stored["target"]]
        titles = [str(row) for row in stored["titles"]]
    window = target.window or (0.0, 1.0)
    (low, high), worst = SHOWN.get(target.unit, (window, (window[1] - window[0]) / 5))
    names = [f"source ({source.modality})", "output", f"target ({target.modality})", "output - target"]
    styles = [
        {"cmap": "gray_r", "vmin": -1, "vmax": 0},
        *[{"cmap": "gray", "vmin": low, "vmax": high}] * 2,
        {"cmap": "RdBu_r", "vmin": -worst, "vmax": worst},
    ]
    figure = Figure(figsize=(10, 2.3 * len(titles) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(titles), 4, squeeze=False)
    for row, label in enumerate(titles):
        for column, (name, style) in enumerate(zip(names, styles, strict=True)):
            axis = axes[row, column]
            drawn = axis.imshow(columns[column][row], interpolation="nearest", **style)
            axis.set(xticks=[], yticks=[], title=name if row == 0 else "")
            if column == 0:
                axis.set_ylabel(label.replace(" slice", "\nslice"), fontsize=8)
            if column >= 2:
                figure.colorbar(drawn, ax=axis, shrink=0.85, label=target.unit)
    figure.suptitle(title)
    figure.savefig(picture, dpi=110)
