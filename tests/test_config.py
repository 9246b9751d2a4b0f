import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from refusal import refusal

from medgan.config import Config, flatten, generator_depth, parse_assignment, uses_discriminator, validated, with_values
from medgan.errors import InputError

pytestmark = pytest.mark.unit


def test_config_defaults_are_valid():
    config = Config()
    assert config.train.generator_steps == 1
    assert (config.optim.beta1, config.optim.beta2) == (0.5, 0.999)
    assert config.loss.lambda_adversarial == 1


def test_config_has_every_fixed_path():
    """DESIGN.md fixes these names: names may be added, none may be removed."""
    fixed = (
        "loss.lambda_perceptual loss.lambda_style loss.lambda_content loss.lambda_l1 generator.num_blocks "
        "generator.base_channels generator.depth generator.norm discriminator.patch optim.generator_lr "
        "optim.discriminator_lr train.epochs train.batch_size train.generator_steps train.seed data.size "
        "extractor.weights"
    )
    assert set(fixed.split()) <= set(flatten(Config()))


def test_with_values_sets_value_in_copy():
    config = Config()
    changed = with_values(config, {"generator.num_blocks": 3, "loss.style_blocks": [2, 4], "generator.depth": 5})
    assert (changed.generator.num_blocks, changed.loss.style_blocks, changed.generator.depth) == (3, (2, 4), 5)
    assert config == Config()
    assert with_values(config, {}) == config


def test_with_values_sets_dependent_values_together():
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
def test_flatten_is_inverted_by_with_values(blocks, style, style_blocks, depth, norm, seed):
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


def test_config_is_frozen():
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
def test_with_values_refuses_unknown_path_with_nearest(path, near):
    with pytest.raises(InputError, check=refusal("E-CONFIG-17", path=path, hint=f"did you mean {near}?")):
        with_values(Config(), {path: 3})


def test_with_values_refuses_unknown_path_with_sections():
    with pytest.raises(
        InputError, match=r"expected one of data\.\*, .*train", check=refusal("E-CONFIG-17", path="zzz")
    ):
        with_values(Config(), {"zzz": 3})


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("generator.num_blocks", 0, "greater than or equal to 1"),
        ("train.epochs", 2.5, "integer"),
        ("train.epochs", "many", "integer"),
        ("optim.generator_lr", 0, "greater than 0"),
        ("optim.beta1", 1, "less than 1"),
        ("loss.lambda_l1", -1, "greater than or equal to 0"),
        ("loss.lambda_l1", math.nan, "finite number"),
        ("loss.lambda_l1", math.inf, "finite number"),
        ("loss.style_blocks", [1, 8], "less than or equal to 7"),
        ("loss.content_blocks", [], "at least 1 item"),
        ("discriminator.patch", 64, "1, 16, 34, 70, 142 or 286"),
        ("generator.norm", "layer", "'instance', 'batch' or 'none'"),
        ("data.size", 8, "greater than or equal to 16"),
    ],
)
def test_with_values_refuses_value_out_of_range(path, value, rule):
    given = 8 if value == [1, 8] else value
    with pytest.raises(InputError, match=rule, check=refusal("E-CONFIG-18", path=path, given=given)):
        with_values(Config(), {path: value})


def test_with_values_refuses_number_of_casnet_blocks_above_eight():
    with pytest.raises(InputError, match="^setting generator.num_blocks: ", check=refusal("E-CONFIG-02", num_blocks=9)):
        with_values(Config(), {"generator.num_blocks": 9})


@pytest.mark.parametrize(
    ("values", "expected"),
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
        ({"loss.lambda_identity": 1}, refusal("E-CONFIG-06", lambda_identity=1.0)),
        ({"loss.cycle_share": [0, 1]}, refusal("E-CONFIG-07", cycle_share=(0.0, 1.0))),
        ({"loss.lambda_stages": 1}, refusal("E-CONFIG-11", lambda_stages=1.0, network="casnet", num_blocks=1)),
        (
            {"loss.lambda_margin": 1, "train.pool_size": 5},
            refusal("E-CONFIG-09", pool_size=5, lambda_margin=1.0, lambda_gradient_penalty=0.0),
        ),
        (
            {"loss.lambda_margin": 1, "loss.lambda_adversarial": 0, "loss.lambda_l1": 1},
            refusal("E-CONFIG-08", lambda_margin=1.0, lambda_gradient_penalty=0.0),
        ),
        ({"loss.lambda_kl": 1}, refusal("E-CONFIG-12", network="casnet")),
        ({"loss.adversarial": "began"}, refusal("E-CONFIG-13", adversarial="began", network="patch")),
        (
            {"discriminator.network": "autoencoder", "loss.adversarial": "wasserstein"},
            refusal("E-CONFIG-13", adversarial="wasserstein", network="autoencoder"),
        ),
        ({"metrics.lpips": "alex"}, refusal("E-CONFIG-10", lpips="alex")),
    ],
)
def test_with_values_refuses_loss_term_without_its_requirement(values, expected):
    with pytest.raises(InputError, check=expected):
        with_values(Config(), values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"generator.recompute": "blocks", "generator.norm": "batch"},
            refusal("E-CONFIG-14", recompute="blocks", norm="batch"),
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
def test_with_values_refuses_memory_saving_that_changes_gradient(values, expected):
    with pytest.raises(InputError, check=expected):
        with_values(Config(), values)


def test_recompute_allows_any_norm_for_network_without_blocks():
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
def test_uses_discriminator_follows_terms_with_weight(values, uses):
    assert uses_discriminator(with_values(Config(), values)) is uses


def test_patch_may_exceed_image_without_discriminator():
    with_values(Config(), {"discriminator.patch": 142, "loss.lambda_adversarial": 0, "loss.lambda_l1": 1})


def test_objective_need_not_fit_network_without_discriminator():
    with_values(Config(), {"loss.adversarial": "began", "loss.lambda_adversarial": 0, "loss.lambda_l1": 1})


def test_began_and_autoencoder_are_set_together():
    config = with_values(Config(), {"loss.adversarial": "began", "discriminator.network": "autoencoder"})
    assert (config.loss.adversarial, config.discriminator.network) == ("began", "autoencoder")


def test_validated_refuses_unknown_name():
    with pytest.raises(InputError, check=refusal("E-CONFIG-18", path="train.epoch", given="3")):
        validated({"train": {"epoch": 3}})


def test_with_values_refuses_patch_larger_than_image():
    with pytest.raises(InputError, check=refusal("E-CONFIG-03", patch="142", size="64")):
        with_values(Config(), {"discriminator.patch": 142})


@pytest.mark.parametrize(
    ("size", "depth", "expected"),
    [
        (64, 7, refusal("E-CONFIG-01", size="64", multiple="128", halvings="7")),
        (72, 4, refusal("E-CONFIG-01", size="72", multiple="16", halvings="4")),
        (65, None, refusal("E-CONFIG-01", size="65", multiple="16", halvings="4")),
        (72, None, refusal("E-CONFIG-01", size="72", multiple="16", halvings="4")),
    ],
)
def test_with_values_refuses_size_that_generator_cannot_halve(size, depth, expected):
    with pytest.raises(InputError, check=expected):
        with_values(Config(), {"data.size": size, "generator.depth": depth})


@pytest.mark.parametrize(("size", "depth"), [(16, 4), (64, 6), (96, 5), (256, 8), (1024, 8), (80, 4)])
def test_generator_depth_follows_image_size_up_to_eight(size, depth):
    assert generator_depth(with_values(Config(), {"data.size": size})) == depth


def test_generator_depth_keeps_given_value():
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
def test_parse_assignment_returns_path_and_json_value_or_text(text, parsed):
    assert parse_assignment(text) == parsed


def test_parse_assignment_refuses_text_without_equals_sign():
    with pytest.raises(InputError, check=refusal("E-CONFIG-19", text="train.epochs")):
        parse_assignment("train.epochs")
