"""Search spaces: reading a file, refusing invalid ones, and drawing configurations."""

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from refusal import refusal

from medgan.config import Config, flatten
from medgan.errors import InputError
from medgan.search.space_yaml import folders, read_space

SMALL = "set: {data.size: 64, extractor.weights: random}\nsearch:\n  generator.num_blocks: {int: [1, 3]}\n"


@pytest.mark.parametrize("name", [path.stem for path in folders()[-1].glob("*.yaml")])
def test_read_space_reads_every_shipped_space(name):
    assert read_space(name, {}).search


CONDITIONAL = """
preset: medgan
set: {data.size: 64, extractor.weights: random, generator.base_channels: 4}
search:
  loss.lambda_style: {choice: [0, 0.1]}
  loss.style_blocks: {choice: [[1], [1, 2]], when: loss.lambda_style > 0}
  generator.network: {choice: [casnet, resnet]}
  generator.depth: {int: [3, 5], when: generator.network == casnet}
  discriminator.spectral_norm: {choice: [true, false]}
  optim.schedule: {choice: [constant, cosine]}
  optim.generator_lr: {log: [1.0e-4, 1.0e-2]}
"""


def test_space_draw_suggests_distribution_of_each_kind_of_range(write, study):
    space = read_space(
        write(
            SMALL + "  loss.lambda_style: {log: [1.0e-5, 1.0]}\n  optim.beta1: {float: [0.0, 0.9]}\n"
            "  discriminator.patch: {choice: [16, 34]}\n"
        ),
        {},
    )
    trial = study.ask()
    config = space.draw(trial, space.base({}))
    assert trial.distributions == {
        "generator.num_blocks": IntDistribution(1, 3),
        "loss.lambda_style": FloatDistribution(1e-5, 1.0, log=True),
        "optim.beta1": FloatDistribution(0.0, 0.9),
        "discriminator.patch": CategoricalDistribution((16, 34)),
    }
    flat = flatten(config)
    assert {name: flat[name] for name in trial.params} == trial.params


def test_conditional_setting_varies_only_where_condition_holds(write, study):
    space = read_space(write(CONDITIONAL), {})
    base = space.base({})
    seen = set()
    for _ in range(60):
        trial = study.ask()
        config = space.draw(trial, base)
        assert ("loss.style_blocks" in trial.params) is (config.loss.lambda_style > 0)
        assert ("generator.depth" in trial.params) is (config.generator.network == "casnet")
        if config.loss.lambda_style == 0:
            assert config.loss.style_blocks == base.loss.style_blocks
        seen.add((config.loss.style_blocks, config.generator.network, config.generator.depth))
        study.tell(trial, 0.5)
    assert {blocks for blocks, _, _ in seen} == {(1,), (1, 2), base.loss.style_blocks}
    assert {depth for _, network, depth in seen if network == "resnet"} == {None}


def test_list_values_survive_study_database_and_retry(write, study):
    space = read_space(write(CONDITIONAL), {})
    base = space.base({})
    drawn = {}
    for _ in range(10):
        trial = study.ask()
        drawn[trial.number] = space.draw(trial, base)
        study.tell(trial, 0.5)
    loaded = optuna.load_study(study_name=study.study_name, storage=study._storage)
    for trial in loaded.trials:
        assert space.configured(trial.params, base) == drawn[trial.number]
        loaded.enqueue_trial(trial.params)
        assert space.draw(loaded.ask(), base) == drawn[trial.number]


def test_corner_takes_largest_values_in_any_order_of_choices(write):
    text = CONDITIONAL.replace("[0, 0.1]", "[0.1, 0]").replace("[[1], [1, 2]]", "[[1, 3], [1, 2]]")
    space = read_space(write(text), {})
    (corner,) = space.corners(space.base({}))
    assert (corner.loss.lambda_style, corner.loss.style_blocks, corner.optim.generator_lr) == (0.1, (1, 3), 1e-2)
    assert (corner.generator.network, corner.generator.depth) == ("resnet", None), "depth varies for casnet only"


SETTINGS = flatten(Config())


@pytest.mark.parametrize(
    "setting", [name for name in SETTINGS if name.split(".")[0] in ("loss", "generator", "discriminator", "optim")]
)
def test_space_can_vary_every_network_loss_and_optimizer_setting(setting, write, study):
    text = yaml.safe_dump(
        {
            "set": {"data.size": 64, "loss.lambda_cycle": 1.0, "generator.num_blocks": 2, "train.batch_size": 4},
            "search": {setting: {"choice": [SETTINGS[setting]]}},
        }
    )
    space = read_space(write(text), {})
    assert flatten(space.draw(study.ask(), space.base({})))[setting] == SETTINGS[setting]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("always", refusal("E-SPACE-01", text="always")),
        ("optim.beta1 > 0.1", refusal("E-SPACE-09", setting="optim.generator_lr", when="optim.beta1 > 0.1")),
        ("loss.lambda_stile > 0", refusal("E-SPACE-09", setting="optim.generator_lr", when="loss.lambda_stile > 0")),
        ("discriminator.patch > 34", refusal("E-SPACE-11", when="discriminator.patch > 34", values="[16, 34]")),
        ("generator.network > 3", refusal("E-SPACE-10", when="generator.network > 3", values="casnet")),
        ("train.seed == 7", refusal("E-SPACE-11", when="train.seed == 7", values="[0]")),
    ],
)
def test_read_space_refuses_impossible_condition(condition, expected, write):
    text = (
        SMALL + f"  discriminator.patch: {{choice: [16, 34]}}\n  optim.generator_lr: {{log: [1.0e-4, 1.0e-2], "
        f"when: '{condition}'}}\n  optim.beta1: {{float: [0.0, 0.9]}}\n"
    )
    with pytest.raises(InputError, check=expected):
        read_space(write(text), {})


@pytest.mark.parametrize("condition", ["generator.num_blocks == 2", "loss.lambda_style > 1e-4", "train.seed < 3"])
def test_read_space_accepts_possible_condition(condition, write):
    text = (
        SMALL
        + f"  loss.lambda_style: {{log: [1.0e-5, 1.0]}}\n  optim.beta1: {{float: [0, 0.9], when: '{condition}'}}\n"
    )
    assert read_space(write(text), {}).search["optim.beta1"].when == condition


def test_read_space_checks_ends_of_conditional_range(write):
    text = CONDITIONAL.replace("[1, 2]]", "[1, 6]]")
    with pytest.raises(
        InputError, check=refusal("E-CONFIG-05", kind="style", network="vgg19", extractor_blocks="5", deepest="6")
    ):
        read_space(write(text), {})


def test_space_base_applies_space_over_preset_and_overrides_over_space(write):
    base = read_space(write(SMALL), {}).base({"train.epochs": 3})
    assert (base.data.size, base.train.epochs, base.loss.lambda_perceptual) == (64, 3, 20.0)


def test_space_digest_depends_on_overrides_but_not_on_number_of_trials(write):
    few = read_space(write(SMALL + "trials: 3\n"), {})
    many = read_space(write(SMALL + "trials: 30\n"), {})
    assert few.digest({}) == many.digest({})
    assert few.digest({}) != few.digest({"train.epochs": 3})


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("search: [", "space.yaml", refusal("E-SPACE-15")),
        ("search: {}", "search: .*at least 1", refusal("E-SPACE-14")),
        ("search: {generator.num_blocks: {int: [3, 1]}}", "num_blocks", refusal("E-SPACE-03", value="[3, 1]")),
        (
            "search: {generator.num_blocks: {int: [1, 3], log: [1, 3]}}",
            "num_blocks",
            refusal("E-SPACE-02", kinds="int, log"),
        ),
        ("search: {optim.generator_lr: {log: [0, 1]}}", "generator_lr", refusal("E-SPACE-04", value="0.0")),
        (
            "search: {generator.blocks: {int: [1, 3]}}",
            "'generator.blocks'",
            refusal("E-CONFIG-17", hint="did you mean generator.block?"),
        ),
        ("search: {generator.num_blocks: {int: [1, 30]}}", "generator.num_blocks", refusal("E-CONFIG-18", given="30")),
        (
            "search: {discriminator.patch: {choice: [16, 17]}}",
            "discriminator.patch",
            refusal("E-CONFIG-18", given="17"),
        ),
        (
            "preset: other\nsearch: {generator.num_blocks: {int: [1, 3]}}",
            "preset: expected one of medgan",
            refusal("E-SPACE-12", name="other"),
        ),
        ("search: {data.size: {choice: [32, 64]}}", "data.size", refusal("E-SPACE-13", setting="data.size")),
        ("search: {train.epochs: {int: [4, 12]}}", "train.epochs", refusal("E-SPACE-13", setting="train.epochs")),
        ("turns: 3\nsearch: {generator.num_blocks: {int: [1, 3]}}", "turns", refusal("E-SPACE-14")),
    ],
)
def test_read_space_refuses_invalid_content(write, text, place, expected):
    with pytest.raises(InputError, check=expected, match=place):
        read_space(write(text), {})


def test_read_space_refuses_unknown_name_and_lists_known_names():
    with pytest.raises(InputError, check=refusal("E-SPACE-17", name="fast"), match="pet2ct, .*quick_same"):
        read_space("fast", {})


def test_read_space_reads_objectives_and_constraints(write):
    text = SMALL + (
        "objectives: {val/mae_hu: min, cost/parameters: min}\nconstraints: [val/ssim >= 0.5]\nsampler: nsga2\n"
        "scheduler: {kind: median, grace_epochs: 3}\nbudget: {gpu_hours: 10}\ncheckpoints: {keep: 5, max_gb: 2}\n"
    )
    space = read_space(write(text), {})
    assert [(goal.metric, goal.mode) for goal in space.goals] == [("val/mae_hu", "min"), ("cost/parameters", "min")]
    assert space.base({}).metrics.select == "val/mae_hu", "the metric that selects the best epoch"
    assert str(space.limits[0]) == "val/ssim >= 0.5"


OTHER_SELECT = refusal("E-SPACE-19", setting="metrics.select", value="val/psnr", goal="val/mae_hu")


@pytest.mark.parametrize("goals", ["metric: val/mae_hu", "objectives: {val/mae_hu: min, val/psnr: max}"])
def test_space_refuses_selection_of_generator_by_other_metric_than_first_goal(write, goals):
    space = read_space(write(f"{SMALL}{goals}\n"), {})
    assert space.base({"metrics.select": "val/mae_hu"}) == space.base({})
    with pytest.raises(InputError, check=OTHER_SELECT):
        space.base({"metrics.select": "val/psnr"})
    with pytest.raises(InputError, check=OTHER_SELECT):
        read_space(write(f"{SMALL}{goals}\n"), {"metrics.select": "val/psnr"})


def test_read_space_names_line_of_selection_by_other_metric_and_accepts_selection_by_goal(write):
    text = f"metric: val/mae_hu\n{SMALL}".replace("{data.size: 64,", "{\n  metrics.select: SELECT, data.size: 64,")
    with pytest.raises(InputError, check=refusal("E-SPACE-19", value="val/psnr", goal="val/mae_hu", line=", line 3")):
        read_space(write(text.replace("SELECT", "val/psnr")), {})
    space = read_space(write(text.replace("SELECT", "val/mae_hu")), {})
    assert space.base({}).metrics.select == "val/mae_hu"


def test_space_digest_ignores_budget_and_checkpoints_but_not_goals(write):
    plain = read_space(write(SMALL), {}).digest({})
    assert read_space(write(SMALL + "budget: {hours: 3}\ncheckpoints: {keep: 9}\n"), {}).digest({}) == plain
    for other in ("metric: val/psnr", "sampler: random", "scheduler: {kind: none}", "constraints: [val/ssim >= 0.5]"):
        assert read_space(write(f"{SMALL}{other}\n"), {}).digest({}) != plain


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (
            SMALL + "metric: loss/generator/l1\n",
            "loss/generator/l1",
            refusal("E-GOAL-04", metric="loss/generator/l1", line=""),
        ),
        (
            SMALL + "mode: min\n",
            "mode min",
            refusal("E-GOAL-03", metric="val/ssim", better="larger", mode="min", line=""),
        ),
        (SMALL + "metric: cost/parameters\n", "objectives", refusal("E-SPACE-07", metric="cost/parameters", line="")),
        (
            SMALL + "mode: max\nobjectives: {val/ssim: max, cost/parameters: min}\n",
            "metric and mode",
            refusal("E-SPACE-06", metric="val/ssim", objectives="val/ssim, cost/parameters", line=""),
        ),
        (SMALL + "objectives: {val/ssim: max}\n", "objectives: .*at least 2", refusal("E-SPACE-14", line=", line 4")),
        (
            SMALL + "constraints:\n  - val/ssim > 3\n",
            "constraints",
            refusal("E-GOAL-01", text="val/ssim > 3", line=", line 4"),
        ),
        (
            SMALL + "sampler: cmaes\n",
            "sampler: .*'tpe', 'gp', 'nsga2', 'random' or 'grid'",
            refusal("E-SPACE-14", line=", line 4"),
        ),
        (
            SMALL + "scheduler:\n  kind: asha\n  grace: 3\n",
            "scheduler.grace: Extra",
            refusal("E-SPACE-14", line=", line 6"),
        ),
        (SMALL + "budget: {hours: 0}\n", "budget.hours: .*greater than 0", refusal("E-SPACE-14", line=", line 4")),
        (
            SMALL + "  generator.num_blocks: {int: [1, 2]}\n",
            "space.yaml",
            refusal("E-SPACE-16", place="generator.num_blocks", line=4, lines=3),
        ),
        (
            "set:\n  data.size: 64\n  train.epoch: 3\nsearch: {generator.num_blocks: {int: [1, 3]}}",
            "'train.epoch'",
            refusal("E-CONFIG-17", hint="did you mean train.epochs?", line=", line 3"),
        ),
        (
            "search:\n  generator.num_blocks: {int: [1, 2]}\n  optim.beta1: {float: [0, 2]}\n",
            "optim.beta1",
            refusal("E-CONFIG-18", given="2.0", line=", line 3"),
        ),
        ("- 3\n", "space.yaml: Input should be", refusal("E-SPACE-14", line="")),
    ],
)
def test_read_space_refusal_names_line(write, text, place, expected):
    with pytest.raises(InputError, check=expected, match=place):
        read_space(write(text), {})
