"""Draws test slices: source, each method's output, target and errors, with units on the color bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medgan.data.atomic_write import write_atomically
from medgan.errors import InputError
from medgan.report.plot_style import new_figure, plain, png_of
from medgan.tasks import Image
from medgan.tracking.slice_pictures import ImageSide, error_of, modality_of, physical, side_of

INCHES = 1.45
"""Gives the side of a slice in `draw_panels`, in inches."""
README_INCHES = 10.9
"""Gives the width of `draw_translation`'s picture in inches: 1200 pixels."""
RESEARCH_ONLY = "for research only, not for diagnosis"


@dataclass(frozen=True)
class Panel:
    """Holds one test slice.

    Attributes:
        label: patient (hash) and slice, such as "patient 3f2a9c slice 31".
        source: (H, W) in [-1, 1].
        target: (H, W) in the target's unit.
        outputs: method -> (H, W) in the target's unit.
    """

    label: str
    source: NDArray[Any]
    target: NDArray[Any]
    outputs: Mapping[str, NDArray[Any]]


def draw_panels(
    panels: Sequence[Panel], picture: Path, *, title: str, source: Image, target: Image, errors: bool
) -> None:
    """Draws a row for each slice, and with `errors` a second row of output - target; DICOM rows run down the page.

    Args:
        panels: at least one, each with the outputs of the same methods.
        picture: PNG to write.
        source: unit and window of the sources.
        target: unit and window of the outputs and targets.

    Raises:
        InputError: there is no panel, or the panels do not have the same methods.
    """
    methods, step = _methods(panels), 2 if errors else 1
    names = [f"source ({modality_of(source)})", *methods, f"target ({modality_of(target)})"]
    size = (INCHES * len(names) + 0.6, INCHES * len(panels) * step * _tallness(panels) + 1.5)
    figure = new_figure(*size)
    axes = figure.subplots(len(panels) * step, len(names), squeeze=False)
    _clear(axes)
    for place, panel in enumerate(panels):
        row = axes[place * step]
        row[0].set_ylabel(_label(panel), fontsize=8)
        source_image = _draw(row[0], physical(panel.source, source), side_of(source))
        for axis, values in zip(row[1:], [*panel.outputs.values(), panel.target], strict=True):
            target_image = _draw(axis, values, side_of(target))
        if errors:
            axes[place * step + 1, 1].set_ylabel("output - target", fontsize=8)
            for axis, values in zip(axes[place * step + 1, 1:-1], panel.outputs.values(), strict=True):
                error_image = _draw(axis, values - panel.target, error_of(target))
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(plain(name), fontsize=9)
    _bar(figure, source_image, axes[:, :1], side_of(source))
    middle = max(1 + len(methods) // 2, 2) if errors else len(names)
    _bar(figure, target_image, axes[:, 1:middle], side_of(target))
    if errors:
        _bar(figure, error_image, axes[:, middle:], error_of(target))
    _finish(figure, picture, title, note="Images between source and target are synthetic,")


def draw_translation(
    panels: Sequence[Panel], method: str, picture: Path, *, title: str, source: Image, target: Image
) -> None:
    """Draws one or two slices in a wide picture: source, synthetic, real and error, each column with its color bar.

    Args:
        picture: PNG to write, 1200 pixels wide.
        source: unit and window of the sources.
        target: unit and window of the other images.

    Raises:
        InputError: there is no panel, or the panels have no output of that method.
    """
    if method not in _methods(panels):
        raise InputError("E-REPORT-03", panels=", ".join(_methods(panels)), method=method)
    columns = {
        f"source ({modality_of(source)})": side_of(source),
        f"synthetic {modality_of(target)} ({method})": side_of(target),
        f"real {modality_of(target)}": side_of(target),
        "synthetic - real": error_of(target),
    }
    figure = new_figure(README_INCHES, README_INCHES / 4 * len(panels) * _tallness(panels) + 1.1)
    axes = figure.subplots(len(panels), len(columns), squeeze=False)
    _clear(axes)
    for row, panel in zip(axes, panels, strict=True):
        output = panel.outputs[method]
        row[0].set_ylabel(_label(panel), fontsize=9)
        images = (physical(panel.source, source), output, panel.target, output - panel.target)
        drawn = [_draw(axis, values, side) for axis, values, side in zip(row, images, columns.values(), strict=True)]
    for place, (name, side) in enumerate(columns.items()):
        axes[0, place].set_title(plain(name), fontsize=11)
        _bar(figure, drawn[place], axes[:, place : place + 1], side)
    _finish(figure, picture, title, note="Synthetic images are")


def _methods(panels: Sequence[Panel]) -> list[str]:
    if not panels:
        raise InputError("E-REPORT-04", num_panels=len(panels))
    methods = list(panels[0].outputs)
    for panel in panels:
        if list(panel.outputs) != methods:
            raise InputError(
                "E-REPORT-05",
                panel_label=panel.label,
                methods=", ".join(methods),
                outputs=", ".join(panel.outputs) or "none",
            )
    return methods


def _tallness(panels: Sequence[Panel]) -> float:
    height, width = panels[0].target.shape
    return float(height / width)


def _label(panel: Panel) -> str:
    return plain(panel.label).replace(" slice", "\nslice")


def _draw(axis: Axes, values: NDArray[Any], side: ImageSide) -> Any:
    axis.set_frame_on(True)
    return axis.imshow(values, interpolation="nearest", **side.style)


def _clear(axes: NDArray[Any]) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)


def _bar(figure: Figure, drawn: Any, axes: NDArray[Any], side: ImageSide) -> None:
    shape: dict[str, Any] = {"location": "bottom", "shrink": 0.9, "pad": 0.02, "aspect": 14 * axes.shape[1]}
    bar = figure.colorbar(drawn, ax=axes, extend=side.extend, extendfrac=0.04, **shape)
    bar.set_label(side.label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _finish(figure: Figure, picture: Path, title: str, *, note: str) -> None:
    figure.suptitle(plain(title), fontsize=11)
    figure.supxlabel(f"{note} {RESEARCH_ONLY}", fontsize=8)
    write_atomically(picture, png_of(figure))
