"""Spaces in which the method itself moves, and grids."""

import optuna
import pytest
from refusal import refusal

from medgan.config import flatten
from medgan.errors import InputError
from medgan.presets.by_name import configured
from medgan.search.forecast import forecast
from medgan.search.largest_trial import largest
from medgan.search.parameters import Move
from medgan.search.space import METHOD, Method, Space
from medgan.search.space_yaml import read_space

FIXED = {"data.size": 32, "train.batch_size": 4, "train.epochs": 5, "extractor.weights": "random"}
NARROW = {"generator.base_channels": 4, "discriminator.base_channels": 4}


@pytest.fixture
def space():
    return Space(
        set=FIXED,
        methods={
            "small": Method(preset="medgan", scale="quick", set=NARROW),
            "u_net": Method(preset="unet_l1", scale="quick", set=NARROW),
        },
        search={"train.seed": Move(int=(0, 2)), METHOD: Move(choice=("small", "u_net"))},
        sampler="grid",
    )


def test_a_method_is_its_preset_with_its_own_settings_and_what_is_one_for_all(space):
    expected = flatten(configured("unet_l1", {**NARROW, **FIXED}, small=True)) | {"train.seed": 2}
    found = space.configured({METHOD: "u_net", "train.seed": 2}, space.base({}))
    assert flatten(found) == expected


def test_drawn_and_configured_are_the_same(space):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    assert space.draw(trial, space.base({})) == space.configured(trial.params, space.base({}))


def test_what_a_person_sets_reaches_every_method(space):
    given = {"optim.schedule": "linear", "train.epochs": 9}
    changed = space.with_overrides(given)
    for config in changed.corners(changed.base(given)):
        assert (config.optim.schedule, config.train.epochs) == ("linear", 9)


def test_presets_move_by_their_names_in_a_file(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("set: {data.size: 128}\nsearch:\n  method: {choice: [medgan_1g, pix2pix]}\n")
    space = read_space(str(path), {"optim.generator_lr": 0.01})
    first, second = space.corners(space.base({"optim.generator_lr": 0.01}))
    assert (first.loss.lambda_style, second.loss.lambda_l1) == (1e-4, 100.0)
    assert first.optim.generator_lr == second.optim.generator_lr == 0.01


def test_a_setting_moves_under_a_method_alone(tmp_path):
    path = tmp_path / "space.yaml"
    moving = "  method: {choice: [medgan, unet_l1]}\n  loss.lambda_style: {choice: [1, 2], when: method == medgan}\n"
    path.write_text(f"set: {{data.size: 64}}\nsearch:\n{moving}")
    space = read_space(str(path), {})
    styles = [config.loss.lambda_style for config in space.corners(space.base({}))]
    assert styles == [2, 0]


def test_the_points_of_a_grid_come_seed_by_seed(space):
    points = space.grid()
    assert [point["train.seed"] for point in points] == [0, 0, 1, 1, 2, 2]
    assert [point[METHOD] for point in points[:2]] == ["small", "u_net"]


def test_more_seeds_are_the_same_grid(space):
    more = space.model_copy(update={"search": {**space.search, "train.seed": Move(int=(0, 7))}})
    assert more.digest({}) == space.digest({})
    assert space.digest({"optim.schedule": "linear"}) != space.digest({})


def test_the_largest_of_all_methods_is_found(space):
    found = largest(space, space.base({}))
    every = [largest(space.model_copy(update={"search": {METHOD: Move(choice=(name,))}}), space.base({}))
             for name in ("small", "u_net")]  # fmt: skip
    assert found.estimate.bytes_per_worker == max(one.estimate.bytes_per_worker for one in every)


def test_minutes_bound_the_forecast(space):
    base = space.base({"train.minutes": 0.001})
    found = forecast(space, base, num_slices=400, threads=1)
    assert found.trial_s == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": {"optim.beta1": Move(float=(0, 1))}}, "optim.beta1: a grid needs int or choice"),
        ({"search": {METHOD: Move(choice=("small", "pixpix"))}}, "expected one of medgan, .*; got 'pixpix'"),
        ({"methods": {"a": {"preset": "medgan", "set": {"train.batch_size": 2}}}}, "train.batch_size is one for all"),
    ],
)
def test_a_space_that_cannot_be_is_refused(space, change, message):
    content = {"set": FIXED, "methods": space.methods, "search": space.search, "sampler": "grid"}
    with pytest.raises(ValueError, match=message):
        Space.model_validate({**content, **change})


def test_a_method_whose_settings_do_not_fit_is_told_with_its_line(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "set: {data.size: 64}\nmethods:\n  wide: {preset: medgan, set: {generator.num_blocks: 99}}\n"
        "search:\n  method: {choice: [wide]}\n"
    )
    with pytest.raises(InputError, check=refusal("E-CONFIG-18", given="99")):
        read_space(str(path), {})
