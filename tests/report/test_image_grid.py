"""Pictures of test slices have the right rows and columns, orientation and intensity window."""

import numpy as np
import pytest
from PIL import Image
from refusal import refusal

from medgan.errors import InputError
from medgan.report.image_grid import Panel, draw_panels, draw_translation
from medgan.tasks import TASKS

CT = TASKS["pet2ct"]
LABEL = "patient 3f2a9c $ slice 31"


def panel(methods=("cgan", "medgan"), *, corner=400.0, side=16):
    """Returns a panel of air, with a bright corner at the upper left of the target."""
    target = np.full((side, side), -1000.0)
    target[: side // 2, : side // 2] = corner
    source = np.full((side, side), -1.0)
    return Panel(LABEL, source, target, {name: target + 50 for name in methods})


def drawn(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")), picture.size


def panels_picture(tmp_path, panels, *, errors):
    picture = tmp_path / "panels.png"
    draw_panels(panels, picture, title="Table I", source=CT.source, target=CT.target, errors=errors)
    return drawn(picture)


def black_slices(pixels, axis):
    """Counts the runs of at least 20 lines, along an axis, that cross black."""
    crossing = np.concatenate(([False], (pixels < 60).mean(axis=1 - axis) > 0.15, [False])).astype(int)
    starts, ends = np.nonzero(np.diff(crossing) == 1)[0], np.nonzero(np.diff(crossing) == -1)[0]
    return int(np.count_nonzero(ends - starts >= 20))


def test_draw_panels_has_row_per_slice_and_column_per_image(tmp_path):
    pixels, size = panels_picture(tmp_path, [panel(corner=-1000.0)] * 3, errors=False)
    assert black_slices(pixels, 0) == 3
    assert black_slices(pixels, 1) == 3, "two methods and the target; the source has no uptake and is white"
    _, wider = panels_picture(tmp_path, [panel(("a", "b", "c", "d"))] * 3, errors=False)
    _, taller = panels_picture(tmp_path, [panel()] * 3, errors=True)
    assert wider[0] > size[0] + 200 and wider[1] == size[1]
    assert taller[1] > size[1] + 400 and taller[0] == size[0]


def test_draw_translation_puts_first_row_at_top_and_first_column_left(tmp_path):
    picture = tmp_path / "readme.png"
    draw_translation([panel(("medgan",))], "medgan", picture, title="", source=CT.source, target=CT.target)
    pixels, (width, height) = drawn(picture)
    assert 1190 <= width <= 1210
    real = pixels[:, width // 2 : 3 * width // 4]
    rows, columns = np.nonzero(real < 40)
    inside = real[rows.min() : rows.max(), columns.min() : columns.max()]
    top, left = inside.shape[0] // 6, inside.shape[1] // 6
    assert inside[top, left] > 240 and inside[top, -left] < 40
    square = inside[: inside.shape[1]]
    assert square[-left, left] < 40 and square[-left, -left] < 40


@pytest.mark.parametrize("name", sorted(TASKS))
def test_image_grids_are_drawn_for_every_task(tmp_path, name):
    task, random = TASKS[name], np.random.default_rng(0)
    images = {side: random.uniform(-1, 1, (24, 16)) for side in ("source", "target", "output")}
    one = Panel("patient ab slice 1", images["source"], images["target"], {"medgan": images["output"]})
    for errors in (False, True):
        draw_panels([one], tmp_path / "a.png", title="t", source=task.source, target=task.target, errors=errors)
    draw_translation([one, one], "medgan", tmp_path / "b.png", title="t", source=task.source, target=task.target)
    assert drawn(tmp_path / "b.png")[1][1] > 700


def test_draw_translation_shows_source_in_window_of_unit(tmp_path):
    half = Panel(
        "patient ab slice 1", np.full((16, 16), -0.5), np.full((16, 16), -1000.0), {"medgan": np.zeros((16, 16))}
    )
    draw_translation([half], "medgan", tmp_path / "a.png", title="", source=CT.source, target=CT.target)
    pixels, (width, height) = drawn(tmp_path / "a.png")
    grey = int(pixels[height // 3, width // 8])
    assert abs(grey - 127) < 8, "2.5 SUV of a window to 5"


def test_draw_translation_refuses_unknown_method(tmp_path):
    with pytest.raises(InputError, check=refusal("E-REPORT-03", panels="cgan, medgan", method="pan")):
        draw_translation([panel()], "pan", tmp_path / "a.png", title="", source=CT.source, target=CT.target)


def test_draw_panels_refuses_slices_with_different_methods(tmp_path):
    with pytest.raises(
        InputError, check=refusal("E-REPORT-05", panel_label=LABEL, methods="cgan, medgan", outputs="medgan")
    ):
        panels_picture(tmp_path, [panel(), panel(("medgan",))], errors=False)


def test_draw_panels_refuses_empty_list_of_slices(tmp_path):
    with pytest.raises(InputError, check=refusal("E-REPORT-04", num_panels=0)):
        panels_picture(tmp_path, [], errors=True)
