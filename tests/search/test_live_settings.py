"""Searched settings that cannot matter: weights whose term does not act, and settings that nothing looks at."""

import pytest

from medgan.config import Config
from medgan.losses.gradient_shares import shares_of
from medgan.search.live_settings import idle_settings, weight_ranges
from medgan.search.space import Space
from medgan.search.space_yaml import folders, read_space

pytestmark = pytest.mark.unit

NORMS = {"adversarial": 0.5, "perceptual": 1.0, "style": 100.0, "content": 1000.0}
WEIGHTS = {"adversarial": 1.0, "perceptual": 20.0, "style": 1e-4, "content": 1e-4}


def space(search, **values):
    return Space.model_validate({"preset": "medgan", "set": values, "search": search})


def ranges(search):
    wanted = space(search)
    return {one.setting: one for one in weight_ranges(wanted, wanted.base({}), NORMS)}


def test_share_at_both_ends_is_that_with_other_weights_of_first_trial():
    found = ranges({"loss.lambda_style": {"log": [1e-3, 1.0]}})["loss.lambda_style"]
    others = 0.5 + 20 + 0.1
    assert (found.low, found.high) == pytest.approx((0.1 / (0.1 + others), 100 / (100 + others)))
    assert not found.is_dead


@pytest.mark.parametrize("ends", [[1e-12, 1e-10], [1e5, 1e7]])
def test_weight_without_influence_over_its_range_is_dead(ends):
    found = ranges({"loss.lambda_style": {"log": ends}})["loss.lambda_style"]
    assert found.is_dead
    assert str(found).startswith("loss.lambda_style cannot matter: over its range its term has ")
    assert f"{100 * found.low:.2g} % to {100 * found.high:.2g} % of the gradient" in str(found)


def test_better_range_gives_two_to_fifty_percent():
    found = ranges({"loss.lambda_style": {"log": [1e-12, 1e-10]}})["loss.lambda_style"]
    low, high = (shares_of(NORMS, {**WEIGHTS, "style": end})["style"] for end in found.better)
    assert 0.01 < low <= 0.02 and 0.5 <= high < 0.7
    assert str(found).endswith("A range of 4e-03 to 3e-01 would give 2 % to 50 %.")


def test_only_term_of_objective_has_no_better_range():
    wanted = space({"loss.lambda_l1": {"log": [1.0, 10.0]}}, **{"loss.lambda_adversarial": 0})
    (found,) = weight_ranges(wanted, wanted.base({}), {"l1": 2.0})
    assert found.better is None and found.is_dead
    assert str(found).endswith("Nothing else moves the output, or this term does not.")


@pytest.mark.parametrize("choice", [[1e-4], [1e-2, 0], [0, 1e-4, 1e-2]])
def test_choices_of_weight_have_smallest_and_largest_share(choice):
    found = ranges({"loss.lambda_style": {"choice": choice}})["loss.lambda_style"]
    shares = [shares_of(NORMS, {**WEIGHTS, "style": value})["style"] for value in choice]
    assert (found.low, found.high) == (min(shares), max(shares))


def test_setting_with_many_values_is_read_quickly():
    wanted = space({"train.seed": {"int": [0, 10**9]}, "loss.lambda_style": {"log": [1e-5, 1e-2]}})
    assert idle_settings(wanted, wanted.base({})) == []


def test_weights_of_discriminator_and_other_settings_have_no_range():
    assert not ranges({"loss.lambda_discriminator": {"log": [0.1, 10.0]}, "optim.generator_lr": {"log": [1e-4, 1e-3]}})


@pytest.mark.parametrize(
    ("preset", "values", "search", "idle"),
    [
        ("unet_l1", {}, {"discriminator.patch": {"choice": [16, 34]}}, "discriminator.patch"),
        ("unet_l1", {}, {"optim.discriminator_lr": {"log": [1e-4, 1e-3]}}, "optim.discriminator_lr"),
        ("cyclegan", {}, {"generator.depth": {"int": [3, 5]}}, "generator.depth"),
        ("cgan", {}, {"loss.style_blocks": {"choice": [[1], [2]]}}, "loss.style_blocks"),
        ("medgan", {"loss.lambda_content": 0}, {"loss.content_blocks": {"choice": [[1], [2]]}}, "loss.content_blocks"),
        ("cgan", {}, {"loss.margin": {"float": [1, 50]}}, "loss.margin"),
        ("cgan", {}, {"loss.cycle_distance": {"choice": ["l1", "l2"]}}, "loss.cycle_distance"),
        ("cgan", {}, {"extractor.scale": {"choice": ["oxford", "as_is"]}}, "extractor.scale"),
    ],
)
def test_setting_that_nothing_looks_at_is_idle(preset, values, search, idle):
    wanted = Space.model_validate({"preset": preset, "set": values, "search": search})
    assert idle_settings(wanted, wanted.base({})) == [idle]


def test_setting_that_some_trial_looks_at_is_accepted():
    wanted = space(
        {
            "generator.network": {"choice": ["resnet", "casnet"]},
            "generator.depth": {"int": [3, 5], "when": "generator.network == casnet"},
            "loss.lambda_style": {"choice": [0.0, 1e-4]},
            "loss.style_blocks": {"choice": [[1], [2]], "when": "loss.lambda_style > 0"},
            "train.seed": {"int": [0, 2]},
        }
    )
    assert idle_settings(wanted, wanted.base({})) == []


def test_setting_that_one_method_looks_at_is_accepted():
    wanted = Space.model_validate(
        {"search": {"method": {"choice": ["unet_l1", "pix2pix"]}, "discriminator.patch": {"choice": [16, 34]}}}
    )
    assert idle_settings(wanted, wanted.base({})) == []


@pytest.mark.parametrize("name", sorted(path.stem for folder in folders() for path in folder.glob("*.yaml")))
def test_spaces_that_come_with_medgan_have_no_idle_setting(name):
    wanted = read_space(name, {})
    assert idle_settings(wanted, wanted.base({})) == []
    assert wanted.base({}) != Config()
