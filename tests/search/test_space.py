"""Search spaces: read, refused, tried against the preset."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from medgan.errors import InputError
from medgan.search.space import folders, read_space

SMALL = "set: {data.size: 64, extractor.weights: random}\nsearch:\n  generator.num_blocks: {int: [1, 3]}\n"


@pytest.fixture
def write(tmp_path):
    """Writes a space file and gives its path."""

    def written(text: str) -> str:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return str(path)

    return written


@pytest.mark.parametrize("name", [path.stem for path in folders()[-1].glob("*.yaml")])
def test_every_shipped_space_reads(name):
    assert read_space(name, {}).search


def test_each_kind_becomes_its_distribution(write):
    space = read_space(
        write(
            SMALL + "  loss.lambda_style: {log: [1.0e-5, 1.0]}\n  optim.beta1: {float: [0.0, 0.9]}\n"
            "  discriminator.patch: {choice: [16, 34]}\n"
        ),
        {},
    )
    found = space.distributions()
    assert found["generator.num_blocks"] == IntDistribution(1, 3)
    assert found["loss.lambda_style"] == FloatDistribution(1e-5, 1.0, log=True)
    assert found["optim.beta1"] == FloatDistribution(0.0, 0.9)
    assert found["discriminator.patch"] == CategoricalDistribution((16, 34))


def test_overrides_go_on_top_of_the_space_and_the_space_on_top_of_the_preset(write):
    base = read_space(write(SMALL), {}).base({"train.epochs": 3})
    assert (base.data.size, base.train.epochs, base.loss.lambda_perceptual) == (64, 3, 20.0)


def test_the_digest_changes_with_what_is_searched_but_not_with_the_number_of_trials(write):
    few = read_space(write(SMALL + "trials: 3\n"), {})
    many = read_space(write(SMALL + "trials: 30\n"), {})
    assert few.digest({}) == many.digest({})
    assert few.digest({}) != few.digest({"train.epochs": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: [", "not readable as YAML"),
        ("search: {}", "search: .*at least 1"),
        ("search: {generator.num_blocks: {int: [3, 1]}}", "low end must be below"),
        ("search: {generator.num_blocks: {int: [1, 3], log: [1, 3]}}", "exactly one of"),
        ("search: {optim.generator_lr: {log: [0, 1]}}", "above 0"),
        ("search: {generator.blocks: {int: [1, 3]}}", "unknown setting 'generator.blocks'; did you mean"),
        ("search: {generator.num_blocks: {int: [1, 30]}}", "generator.num_blocks: .*got 30"),
        ("search: {discriminator.patch: {choice: [16, 17]}}", "discriminator.patch: .*got 17"),
        ("preset: other\nsearch: {generator.num_blocks: {int: [1, 3]}}", "preset: expected one of medgan"),
        ("search: {data.size: {choice: [32, 64]}}", "data.size is one for all trials of a study"),
        ("search: {train.epochs: {int: [4, 12]}}", "train.epochs is one for all trials"),
        ("turns: 3\nsearch: {generator.num_blocks: {int: [1, 3]}}", "turns"),
    ],
)
def test_a_wrong_file_is_refused_by_name(write, text, message):
    with pytest.raises(InputError, match=message):
        read_space(write(text), {})


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="--space: expected a file or one of .*quick; got 'fast'"):
        read_space("fast", {})


def test_a_setting_that_moves_cannot_be_fixed(write):
    with pytest.raises(InputError, match="--set generator.num_blocks: the search space .* moves it"):
        read_space(write(SMALL), {"generator.num_blocks": 2})
