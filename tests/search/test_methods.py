"""Spaces that search the method itself, and grids."""

import optuna
import pytest
from pydantic import ValidationError
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


def test_method_combines_preset_own_settings_and_shared_settings(space):
    expected = flatten(configured("unet_l1", {**NARROW, **FIXED}, small=True)) | {"train.seed": 2}
    found = space.configured({METHOD: "u_net", "train.seed": 2}, space.base({}))
    assert flatten(found) == expected


def test_space_draw_equals_space_configured(space):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    assert space.draw(trial, space.base({})) == space.configured(trial.params, space.base({}))


def test_with_overrides_changes_every_method(space):
    given = {"optim.schedule": "linear", "train.epochs": 9}
    changed = space.with_overrides(given)
    for config in changed.corners(changed.base(given)):
        assert (config.optim.schedule, config.train.epochs) == ("linear", 9)


def test_read_space_accepts_preset_names_as_methods(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("set: {data.size: 128}\nsearch:\n  method: {choice: [medgan_1g, pix2pix]}\n")
    space = read_space(str(path), {"optim.generator_lr": 0.01})
    first, second = space.corners(space.base({"optim.generator_lr": 0.01}))
    assert (first.loss.lambda_style, second.loss.lambda_l1) == (1e-4, 100.0)
    assert first.optim.generator_lr == second.optim.generator_lr == 0.01


def test_setting_with_condition_on_method_varies_for_this_method_only(tmp_path):
    path = tmp_path / "space.yaml"
    moving = "  method: {choice: [medgan, unet_l1]}\n  loss.lambda_style: {choice: [1, 2], when: method == medgan}\n"
    path.write_text(f"set: {{data.size: 64}}\nsearch:\n{moving}")
    space = read_space(str(path), {})
    styles = [config.loss.lambda_style for config in space.corners(space.base({}))]
    assert styles == [2, 0]


def test_grid_points_are_ordered_by_seed(space):
    points = space.grid()
    assert [point["train.seed"] for point in points] == [0, 0, 1, 1, 2, 2]
    assert [point[METHOD] for point in points[:2]] == ["small", "u_net"]


def test_grid_digest_does_not_depend_on_seeds(space):
    more = space.model_copy(update={"search": {**space.search, "train.seed": Move(int=(0, 7))}})
    assert more.digest({}) == space.digest({})
    assert space.digest({"optim.schedule": "linear"}) != space.digest({})


def test_largest_trial_is_searched_over_all_methods(space):
    found = largest(space, space.base({}))
    every = [largest(space.model_copy(update={"search": {METHOD: Move(choice=(name,))}}), space.base({}))
             for name in ("small", "u_net")]  # fmt: skip
    assert found.estimate.bytes_per_worker == max(one.estimate.bytes_per_worker for one in every)


def test_forecast_is_limited_by_setting_minutes(space):
    base = space.base({"train.minutes": 0.001})
    found = forecast(space, base, num_slices=400, threads=1)
    assert found.trial_s == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"search": {"optim.beta1": Move(float=(0, 1))}}, refusal("E-SPACE-08", setting="optim.beta1", kind="float")),
        ({"search": {METHOD: Move(choice=("small", "pixpix"))}}, refusal("E-SPACE-12", name="pixpix")),
        (
            {"methods": {"a": {"preset": "medgan", "set": {"train.batch_size": 2}}}},
            refusal("E-SPACE-05", shared="train.batch_size"),
        ),
        (
            {"methods": {"a": {"preset": "medgan", "set": {"metrics.select": "val/psnr"}}}},
            refusal("E-SPACE-05", shared="metrics.select"),
        ),
    ],
)
def test_space_refuses_invalid_grid_or_method(space, change, expected):
    content = {"set": FIXED, "methods": space.methods, "search": space.search, "sampler": "grid"}
    with pytest.raises(ValidationError) as caught:
        Space.model_validate({**content, **change})
    assert expected(caught.value.errors()[0]["ctx"]["error"])


def test_read_space_refusal_names_setting_of_invalid_method(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "set: {data.size: 64}\nmethods:\n  wide: {preset: medgan, set: {generator.num_blocks: 99}}\n"
        "search:\n  method: {choice: [wide]}\n"
    )
    expected = refusal("E-CONFIG-18", given="99", line=", line 5")
    with pytest.raises(InputError, check=expected, match="generator.num_blocks"):
        read_space(str(path), {})
