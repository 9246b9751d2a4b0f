"""The first trial of a search begins with the preset's values."""

import optuna
import pytest

from medgan.config import flatten
from medgan.search.space_yaml import read_space


def test_space_beginnings_hold_preset_values_inside_ranges(write):
    space = read_space(
        write(
            "set: {data.size: 64, extractor.weights: random, loss.style_blocks: [1, 2]}\nsearch:\n"
            "  loss.lambda_style: {log: [1.0e-5, 0.1]}\n"
            "  loss.style_blocks: {choice: [[1], [1, 2]]}\n"
            "  loss.lambda_l1: {log: [1, 10]}\n"
            "  generator.num_blocks: {int: [1, 3]}\n"
            "  discriminator.patch: {choice: [34, 16]}\n"
        ),
        {},
    )
    (beginning,) = space.beginnings(space.base({}))
    assert beginning == {"loss.lambda_style": 1e-4, "loss.style_blocks": "[1, 2]", "discriminator.patch": 16}
    study = optuna.create_study()
    study.enqueue_trial(beginning)
    drawn = space.draw(study.ask(), space.base({}))
    assert flatten(drawn).items() >= {"loss.lambda_style": 1e-4, "loss.style_blocks": [1, 2]}.items()
    assert 1 <= drawn.generator.num_blocks <= 3


@pytest.mark.parametrize("name", ["quick", "quick_same", "pet2ct", "mr_motion", "pet_denoise"])
def test_space_beginnings_of_shipped_spaces_hold_every_searched_setting(name):
    space = read_space(name, {})
    (beginning,) = space.beginnings(space.base({}))
    assert beginning.keys() == space.search.keys()
