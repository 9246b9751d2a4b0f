"""Pictures of fixed slices are drawn from stored arrays."""

import numpy as np
from PIL import Image

from medgan.tasks import TASKS
from medgan.tracking.slice_pictures import draw_slices


def test_draw_slices_draws_panel_for_each_slice(tmp_path):
    def drawn(count):
        arrays = {name: np.zeros((count, 16, 16), np.float32) for name in ("source", "output", "target")}
        np.savez(
            tmp_path / "slices.npz", **arrays, titles=np.array([f"patient ab slice {row}" for row in range(count)])
        )
        task = TASKS["pet2ct"]
        draw_slices(
            tmp_path / "slices.npz", tmp_path / "panel.png", title="trial 0", source=task.source, target=task.target
        )
        return Image.open(tmp_path / "panel.png").size

    (wide, tall), (_, low) = drawn(4), drawn(2)
    assert wide > 1000
    assert tall > 1.5 * low
