import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from refusal import refusal

from medgan.config import Config, flatten, generator_depth, parse_assignment, uses_discriminator, validated, with_values
from medgan.errors import InputError


def test_defaults_are_a_valid_configuration():
    config = Config()
    assert config.train.generator_steps == 1
    assert (config.optim.beta1, config.optim.beta2) == (0.5, 0.999)
    assert config.loss.lambda_adversarial == 1


def test_the_fixed_paths_are_there():
    """The names DESIGN freezes: additions are fine, removals not."""
    fixed = (
        "loss.lambda_perceptual loss.lambda_style loss.lambda_content loss.lambda_l1 generator.num_blocks "
        "generator.base_channels generator.depth generator.norm discriminator.patch optim.generator_lr "
        "optim.discriminator_lr train.epochs train.batch_size train.generator_steps train.seed data.size "
        "extractor.weights"
    )
    assert set(fixed.split()) <= set(flatten(Config()))


def test_a_value_is_set_by_its_path_in_a_copy():
    config = Config()
    changed = with_values(config, {"generator.num_blocks": 3, "loss.style_blocks": [2, 4], "generator.depth": 5})
    assert (changed.generator.num_blocks, changed.loss.style_blocks, changed.generator.depth) == (3, (2, 4), 5)
    assert config == Config()
    assert with_values(config, {}) == config


def test_values_that_only_fit_together_are_set_together():
    assert with_values(Config(), {"data.size": 256, "discriminator.patch": 142}).discriminator.patch == 142


@settings(deadline=None)
@given(
    blocks=st.integers(1, 8),
    style=st.floats(0, 1e6),
    style_blocks=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    depth=st.none() | st.integers(2, 6),
    norm=st.sampled_from(["instance", "batch", "none"]),
    seed=st.integers(0, 2**31),
)
def test_flattening_and_setting_again_changes_nothing(blocks, style, style_blocks, depth, norm, seed):
    values = {
        "generator.num_blocks": blocks, "loss.lambda_style": style, "loss.style_blocks": style_blocks,
        "generator.depth": depth, "generator.norm": norm, "train.seed": seed,
    }  # fmt: skip
    config = with_values(Config(), values)
    flat = flatten(config)
    assert {path: flat[path] for path in values} == values
    assert with_values(Config(), flat) == config
    assert validated(config.model_dump(mode="json")) == config
    assert hash(config) == hash(with_values(Config(), flat))


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        Config().train = None


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("train.epoch", "train.epochs"),
        ("loss.lambda_perceptal", "loss.lambda_perceptual"),
        ("num_blocks", "generator.num_blocks"),
    ],
)
def test_an_unknown_path_is_refused_with_the_nearest(path, near):
    with pytest.raises(InputError, check=refusal("E-CONFIG-17")):
        with_values(Config(), {path: 3})


def test_a_path_like_none_is_refused_with_the_sections():
    with pytest.raises(InputError, check=refusal("E-CONFIG-17", path="zzz")):
        with_values(Config(), {"zzz": 3})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("generator.num_blocks", 9, refusal("E-CONFIG-02", num_blocks="9")),
        ("generator.num_blocks", 0, refusal("E-CONFIG-18", path="generator.num_blocks", given="0")),
        ("train.epochs", 2.5, refusal("E-CONFIG-18", path="train.epochs", given="2.5")),
        ("train.epochs", "many", refusal("E-CONFIG-18", path="train.epochs", given="many")),
        ("optim.generator_lr", 0, refusal("E-CONFIG-18", path="optim.generator_lr", given="0")),
        ("optim.beta1", 1, refusal("E-CONFIG-18", path="optim.beta1", given="1")),
        ("loss.lambda_l1", -1, refusal("E-CONFIG-18", path="loss.lambda_l1", given="-1")),
        ("loss.lambda_l1", math.nan, refusal("E-CONFIG-18", path="loss.lambda_l1", given="nan")),
        ("loss.lambda_l1", math.inf, refusal("E-CONFIG-18", path="loss.lambda_l1", given="inf")),
        ("loss.style_blocks", [1, 8], refusal("E-CONFIG-18", path="loss.style_blocks", given="8")),
        ("loss.content_blocks", [], refusal("E-CONFIG-18", path="loss.content_blocks", given="[]")),
        ("discriminator.patch", 64, refusal("E-CONFIG-18", path="discriminator.patch", given="64")),
        ("generator.norm", "layer", refusal("E-CONFIG-18", path="generator.norm", given="layer")),
        ("data.size", 8, refusal("E-CONFIG-18", path="data.size", given="8")),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_path_and_itself(path, value, message):
    with pytest.raises(InputError, check=message):
        with_values(Config(), {path: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss.lambda_style": 1.0, "loss.style_blocks": [1, 6]},
            refusal("E-CONFIG-05", kind="style", network="vgg19", extractor_blocks="5", deepest="6"),
        ),
        (
            {"loss.lambda_content": 1.0, "extractor.network": "in_domain", "loss.content_blocks": [5]},
            refusal("E-CONFIG-05", kind="content", network="in_domain", extractor_blocks="4", deepest="5"),
        ),
        ({"loss.lambda_adversarial": 0}, refusal("E-CONFIG-04")),
        ({"loss.lambda_identity": 1}, refusal("E-CONFIG-06")),
        ({"loss.cycle_share": [0, 1]}, refusal("E-CONFIG-07")),
        ({"loss.lambda_stages": 1}, refusal("E-CONFIG-11")),
        (
            {"loss.lambda_margin": 1, "train.pool_size": 5},
            refusal("E-CONFIG-09"),
        ),
        ({"loss.lambda_kl": 1}, refusal("E-CONFIG-12", network="casnet")),
        (
            {"loss.adversarial": "began"},
            refusal("E-CONFIG-13", adversarial="began", network="patch"),
        ),
        (
            {"discriminator.network": "autoencoder", "loss.adversarial": "wasserstein"},
            refusal("E-CONFIG-13", adversarial="wasserstein", network="autoencoder"),
        ),
        ({"metrics.lpips": "alex"}, refusal("E-CONFIG-10", lpips="alex")),
    ],
)
def test_a_term_without_what_it_looks_at_is_refused(values, message):
    with pytest.raises(InputError, check=message):
        with_values(Config(), values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"generator.recompute": "blocks", "generator.norm": "batch"},
            refusal("E-CONFIG-14"),
        ),
        (
            {"train.accumulate": 3, "train.batch_size": 8},
            refusal("E-CONFIG-15", batch_size="8", parts="3"),
        ),
        (
            {"train.accumulate": 2, "train.batch_size": 2, "loss.lambda_mmd": 1, "loss.lambda_feature_matching": 1},
            refusal("E-CONFIG-16", parts="2", whole="loss.lambda_feature_matching, loss.lambda_mmd"),
        ),
        (
            {
                "train.accumulate": 2, "train.batch_size": 2, "loss.adversarial": "began",
                "discriminator.network": "autoencoder",
            },
            refusal("E-CONFIG-16", parts="2", whole="loss.adversarial began"),
        ),
    ],
)  # fmt: skip
def test_what_would_save_memory_for_another_gradient_is_refused(values, message):
    with pytest.raises(InputError, check=message):
        with_values(Config(), values)


def test_a_network_without_blocks_that_can_be_computed_again_may_have_any_norm():
    with_values(Config(), {"generator.recompute": "blocks", "generator.norm": "batch", "generator.network": "resnet"})


@pytest.mark.parametrize(
    ("values", "uses"),
    [
        ({}, True),
        ({"loss.lambda_adversarial": 0, "loss.lambda_l1": 1}, False),
        ({"loss.lambda_adversarial": 0, "loss.lambda_perceptual": 1}, True),
        ({"loss.lambda_adversarial": 0, "loss.lambda_feature_matching": 1}, True),
        ({"loss.lambda_adversarial": 0, "loss.lambda_style": 1, "loss.lambda_content": 1}, False),
    ],
)
def test_a_discriminator_is_there_for_the_terms_that_look_at_it(values, uses):
    assert uses_discriminator(with_values(Config(), values)) is uses


def test_without_a_discriminator_its_patch_may_be_larger_than_the_image():
    with_values(Config(), {"discriminator.patch": 142, "loss.lambda_adversarial": 0, "loss.lambda_l1": 1})


def test_without_a_discriminator_its_network_and_its_objective_need_not_fit():
    with_values(Config(), {"loss.adversarial": "began", "loss.lambda_adversarial": 0, "loss.lambda_l1": 1})


def test_began_and_its_autoencoder_are_set_together():
    config = with_values(Config(), {"loss.adversarial": "began", "discriminator.network": "autoencoder"})
    assert (config.loss.adversarial, config.discriminator.network) == ("began", "autoencoder")


def test_an_unknown_name_in_a_tree_is_refused():
    with pytest.raises(InputError, check=refusal("E-CONFIG-18", path="train.epoch", given="3")):
        validated({"train": {"epoch": 3}})


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(InputError, check=refusal("E-CONFIG-03", patch="142", size="64")):
        with_values(Config(), {"discriminator.patch": 142})


@pytest.mark.parametrize(
    ("size", "depth", "message"),
    [
        (64, 7, refusal("E-CONFIG-01", size="64", multiple="128", halvings="7")),
        (72, 4, refusal("E-CONFIG-01", size="72", multiple="16", halvings="4")),
        (65, None, refusal("E-CONFIG-01", size="65", multiple="16", halvings="4")),
        (72, None, refusal("E-CONFIG-01", size="72", multiple="16", halvings="4")),
    ],
)
def test_a_size_the_generator_cannot_halve_is_refused(size, depth, message):
    with pytest.raises(InputError, check=message):
        with_values(Config(), {"data.size": size, "generator.depth": depth})


@pytest.mark.parametrize(("size", "depth"), [(16, 4), (64, 6), (96, 5), (256, 8), (1024, 8), (80, 4)])
def test_the_depth_follows_the_image_down_to_one_pixel_at_most_eight(size, depth):
    assert generator_depth(with_values(Config(), {"data.size": size})) == depth


def test_a_set_depth_is_kept():
    assert generator_depth(with_values(Config(), {"generator.depth": 3})) == 3


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        ("loss.lambda_style=1e-4", ("loss.lambda_style", 1e-4)),
        ("loss.style_blocks=[1, 5]", ("loss.style_blocks", [1, 5])),
        ("generator.depth=null", ("generator.depth", None)),
        ("generator.norm=batch", ("generator.norm", "batch")),
        (" extractor.weights = /data/a=b.pth ", ("extractor.weights", "/data/a=b.pth")),
        ("discriminator.spectral_norm=false", ("discriminator.spectral_norm", False)),
    ],
)
def test_an_assignment_is_a_path_and_a_json_value_or_text(text, parsed):
    assert parse_assignment(text) == parsed


def test_an_assignment_without_equals_is_refused():
    with pytest.raises(InputError, check=refusal("E-CONFIG-19", text="train.epochs")):
        parse_assignment("train.epochs")
