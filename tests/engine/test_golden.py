"""Golden curves: 20 steps of each preset, made small, in float64 on one thread.

A refactor leaves `tests/golden/<preset>.txt` unchanged. A change of numbers is shown before and after, by writing the
files anew and committing them with the reason:

    MEDGAN_REGENERATE_GOLDEN=1 python -m pytest tests/engine/test_golden.py
"""

import copy
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medgan.build.objective import build_objective
from medgan.build.training import build_state, updates_of
from medgan.config import with_values
from medgan.engine.runtime import SingleProcess
from medgan.engine.steps import train_step
from medgan.presets.table import PRESETS, quick

FOLDER = Path(__file__).parents[1] / "golden"
STEPS = 20
SMALL = {
    "data.size": 64, "generator.base_channels": 4, "discriminator.base_channels": 4, "train.batch_size": 2,
    "extractor.weights": "random",
}  # fmt: skip


def small(name):
    """The preset, with what its own networks allow made small."""
    config = quick(PRESETS[name]())
    return with_values(config, {**SMALL, "generator.num_blocks": min(config.generator.num_blocks, 2)})


def synthetic_batches(size, batch_size):
    """Discs of random place, radius and brightness; the target is the source's contrast turned around, and an edge."""
    draw = torch.Generator().manual_seed(2718)
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    while True:
        row, column, radius, level = torch.rand(4, batch_size, 1, 1, generator=draw, dtype=torch.float64).unbind()
        distance = ((axis[:, None] - row + 0.5) ** 2 + (axis[None, :] - column + 0.5) ** 2).sqrt()
        disc = torch.sigmoid(20 * (0.2 + radius / 2 - distance))
        source = 2 * disc * (0.3 + 0.7 * level) - 1
        target = disc * (1 - level) + 4 * disc * (1 - disc) * 0.5 - 0.8
        yield source[:, None], target[:, None]


def curve(config):
    """A line a step: every logged loss, by name."""
    state = build_state(config, SingleProcess(torch.device("cpu")))
    for way in state.ways:
        way.generator.double()
        if way.discriminator is not None:
            way.discriminator.double()
    if state.extractor is not None:
        state = replace(state, extractor=copy.deepcopy(state.extractor).double())
    objective, updates = build_objective(config), updates_of(config)
    batches = synthetic_batches(config.data.size, config.train.batch_size)
    torch.manual_seed(161803)
    return [
        {
            name: float(value)
            for name, value in train_step(state, objective.at(number / STEPS), batches, updates).items()
        }
        for number in range(STEPS)
    ]


def read(path):
    names, *lines = [line.split() for line in path.read_text().splitlines()]
    return [dict(zip(names, map(float, line), strict=True)) for line in lines]


def write(path, rows):
    lines = [" ".join(rows[0])] + [" ".join(f"{value:.9e}" for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_first_steps_of_a_preset_have_not_changed(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = curve(small(name))
    finally:
        torch.set_num_threads(threads)
    path = FOLDER / f"{name}.txt"
    if os.environ.get("MEDGAN_REGENERATE_GOLDEN"):
        write(path, rows)
    expected = read(path)
    assert len(rows) == len(expected) == STEPS
    for number, (row, golden) in enumerate(zip(rows, expected, strict=True)):
        assert row == pytest.approx(golden, rel=1e-5, abs=0), f"{name}, step {number}"
