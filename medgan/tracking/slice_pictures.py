"""Draws pictures of fixed slices: source, output, target and error, with units on the color bars."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medgan.tasks import Image

WINDOWS = {"HU": ((-300.0, 400.0), 400.0), "SUV": ((0.0, 5.0), 1.0)}
"""Each unit has the window that a reader expects and the error where the colors end; others use the task's window."""


class ImageSide(NamedTuple):
    """Describes how images of a kind are drawn, and the label of their color bar."""

    style: dict[str, Any]
    label: str
    extend: str = "both"


def side_of(image: Image) -> ImageSide:
    """Returns how to draw an image: PET black on white, the color bar pointed where the window leaves values out."""
    low, high = _window(image)[0]
    lowest, highest = image.window or (low, high)
    below, above = low > lowest, high < highest
    return ImageSide(
        {"cmap": "gray_r" if image.unit == "SUV" else "gray", "vmin": low, "vmax": high},
        f"{modality_of(image)} [{image.unit}]",
        ("both" if above else "min") if below else ("max" if above else "neither"),
    )


def error_of(image: Image) -> ImageSide:
    """Returns how to draw output - target."""
    worst = _window(image)[1]
    return ImageSide({"cmap": "RdBu_r", "vmin": -worst, "vmax": worst}, f"error [{image.unit}]")


def modality_of(image: Image) -> str:
    """Returns the name of the modality for a person."""
    return "PET" if image.modality == "PT" else image.modality


def physical(values: NDArray[Any], image: Image) -> NDArray[Any]:
    """Maps [-1, 1] to the image's unit, or to 0 to 1 where each volume has its own window."""
    low, high = image.window or (0.0, 1.0)
    return low + (values + 1) * (high - low) / 2


def draw_slices(arrays: Path, picture: Path, *, title: str, source: Image, target: Image) -> None:
    """Draws what `medgan.training.validation.fixed_pictures` stored; DICOM rows run down the page.

    Args:
        arrays: .npz file with source, output, target and titles.
        picture: PNG file to write.
        source: image whose modality, unit and window the source's column shows.
        target: image whose unit and window the other columns show.
    """
    with np.load(arrays, allow_pickle=False) as stored:
        given, output, wanted = (stored[name] for name in ("source", "output", "target"))
        titles = [str(row) for row in stored["titles"]]
    columns = {
        f"source ({modality_of(source)})": (physical(given, source), side_of(source)),
        "output": (output, side_of(target)),
        f"target ({modality_of(target)})": (wanted, side_of(target)),
        "output - target": (output - wanted, error_of(target)),
    }
    figure = Figure(figsize=(11, 2.3 * len(titles) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(titles), len(columns), squeeze=False)
    for row, label in enumerate(titles):
        for axis, (name, (images, side)) in zip(axes[row], columns.items(), strict=True):
            drawn = axis.imshow(images[row], interpolation="nearest", **side.style)
            axis.set(xticks=[], yticks=[], title=name if row == 0 else "")
            figure.colorbar(drawn, ax=axis, shrink=0.85, label=side.label, extend=side.extend)
        axes[row, 0].set_ylabel(label.replace(" slice", "\nslice"), fontsize=8)
    figure.suptitle(title)
    figure.savefig(picture, dpi=110)


def _window(image: Image) -> tuple[tuple[float, float], float]:
    low, high = image.window or (0.0, 1.0)
    return WINDOWS.get(image.unit, ((low, high), (high - low) / 5))
