"""Golden curves: 20 steps of each preset, made small, in float64 on one thread.

They are the same on every processor: sums that another instruction set rounds otherwise must not grow to what is
compared here. So the first weights are drawn in float64 too, the images have texture (flat ones make instance norms
divide by next to nothing), and the learning rates are small. What differs by 1e-16 at first then differs by 1e-10 at
most after 20 steps, and beta1 = .9 still shows as 1e-4.

A refactor leaves `tests/golden/<preset>.txt` unchanged. A change of numbers is shown before and after, by writing the
files anew and committing them with the reason:

    MEDGAN_REGENERATE_GOLDEN=1 python -m pytest tests/training/test_golden.py
"""

import os
from pathlib import Path

import pytest
import torch

from medgan.config import with_values
from medgan.presets.by_name import PRESETS, quick
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.frozen_features import frozen_extractor
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step

FOLDER = Path(__file__).parents[1] / "golden"
STEPS = 20
SMALL = {
    "data.size": 64, "generator.base_channels": 4, "discriminator.base_channels": 4, "train.batch_size": 2,
    "extractor.weights": "random", "optim.generator_lr": 1e-5, "optim.discriminator_lr": 1e-5,
}  # fmt: skip


def small(name):
    """The preset, with what its own networks allow made small."""
    config = quick(PRESETS[name]())
    return with_values(config, {**SMALL, "generator.num_blocks": min(config.generator.num_blocks, 2)})


def synthetic_batches(size, batch_size):
    """Textured discs of random place, radius and brightness; the target is the source's contrast turned around."""
    draw = torch.Generator().manual_seed(2718)
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    while True:
        row, column, radius, level = torch.rand(4, batch_size, 1, 1, generator=draw, dtype=torch.float64).unbind()
        distance = ((axis[:, None] - row + 0.5) ** 2 + (axis[None, :] - column + 0.5) ** 2).sqrt()
        disc = torch.sigmoid(20 * (0.2 + radius / 2 - distance))
        source = 2 * disc * (0.3 + 0.7 * level) - 1
        target = disc * (1 - level) + 4 * disc * (1 - disc) * 0.5 - 0.8
        texture = 0.4 * torch.rand(2, *disc.shape, generator=draw, dtype=torch.float64) - 0.2
        yield (source + texture[0])[:, None], (target + texture[1])[:, None]


def curve(config):
    """A line a step: every logged loss, by name."""
    state = build_state(config, SingleProcess(torch.device("cpu")))
    objective, updates = build_objective(config), updates_of(config)
    batches = synthetic_batches(config.data.size, config.train.batch_size)
    torch.manual_seed(161803)
    return [
        {
            name: float(value)
            for name, value in train_step(state, objective.at(number / STEPS), batches, updates).items()
            if not name.startswith("judgement")  # no loss
        }
        for number in range(STEPS)
    ]


def read(path):
    names, *lines = [line.split() for line in path.read_text().splitlines()]
    return [dict(zip(names, map(float, line), strict=True)) for line in lines]


def write(path, rows):
    lines = [" ".join(rows[0])] + [" ".join(f"{value:.9e}" for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def float64_on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    frozen_extractor.cache_clear()  # what is kept there is float32
    yield
    frozen_extractor.cache_clear()
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("float64_on_one_thread")
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_first_steps_of_preset_equal_golden_curve(name):
    rows = curve(small(name))
    path = FOLDER / f"{name}.txt"
    if os.environ.get("MEDGAN_REGENERATE_GOLDEN"):
        write(path, rows)
    expected = read(path)
    assert len(rows) == len(expected) == STEPS
    for number, (row, golden) in enumerate(zip(rows, expected, strict=True)):
        assert row == pytest.approx(golden, rel=1e-5, abs=0), f"{name}, step {number}"
