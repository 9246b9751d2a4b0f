"""Pictures of test slices: source, what each method made of it, target, and errors; units on the color bars."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medgan.data.atomic_write import write_atomically
from medgan.errors import InputError
from medgan.report.plot_style import new_figure, plain
from medgan.tasks import Image
from medgan.tracking.slice_pictures import ImageSide, error_of, modality_of, physical, side_of

DOTS_PER_INCH = 110
INCHES = 1.45
"""Side of a slice in `draw_panels`."""
README_INCHES = 10.9
"""Width of `draw_translation`'s picture: 1200 pixels."""
RESEARCH_ONLY = "for research only, not for diagnosis"


@dataclass(frozen=True)
class Panel:
    """One test slice.

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
    """A row a slice, with a second one of output - target where errors are asked for; DICOM rows run down the page.

    Args:
        panels: at least one, each with the outputs of the same methods.
        picture: PNG to write.
        title: above everything.
        source: unit and window of the sources.
        target: unit and window of the others.
        errors: draw them.

    Raises:
        InputError: there is no panel, or they are not of the same methods.
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
        given = _draw(row[0], physical(panel.source, source), side_of(source))
        for axis, values in zip(row[1:], [*panel.outputs.values(), panel.target], strict=True):
            shown = _draw(axis, values, side_of(target))
        if errors:
            axes[place * step + 1, 1].set_ylabel("output - target", fontsize=8)
            for axis, values in zip(axes[place * step + 1, 1:-1], panel.outputs.values(), strict=True):
                wrong = _draw(axis, values - panel.target, error_of(target))
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(plain(name), fontsize=9)
    _bar(figure, given, axes[:, :1], side_of(source))
    middle = max(1 + len(methods) // 2, 2) if errors else len(names)
    _bar(figure, shown, axes[:, 1:middle], side_of(target))
    if errors:
        _bar(figure, wrong, axes[:, middle:], error_of(target))
    _finish(figure, picture, title, note="Images between source and target are synthetic,")


def draw_translation(
    panels: Sequence[Panel], method: str, picture: Path, *, title: str, source: Image, target: Image
) -> None:
    """A wide picture of one or two slices: source, synthetic, real, error, each column with its color bar.

    Args:
        panels: one row each.
        method: whose output.
        picture: PNG to write, 1200 pixels wide.
        title: above everything.
        source: unit and window of the sources.
        target: unit and window of the others.

    Raises:
        InputError: there is no panel, or no output of that method.
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
        raise InputError("E-REPORT-04")
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
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    write_atomically(picture, content.getvalue())
