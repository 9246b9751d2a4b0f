"""The trial of a space that needs the most memory, and the refusal of a space whose largest trial does not fit."""

import pytest
from refusal import refusal

from medgan.config import with_values
from medgan.errors import InputError
from medgan.presets.medgan import medgan
from medgan.search.largest_trial import CERTAINLY, largest, refuse_what_has_no_memory
from medgan.search.parameters import Move
from medgan.search.space import Space
from medgan.training.memory_estimate import estimate, gigabytes

BASE = with_values(
    medgan(),
    {
        "data.size": 64,
        "generator.base_channels": 4,
        "generator.num_blocks": 1,
        "discriminator.base_channels": 16,
        "extractor.weights": "random",
        "loss.style_blocks": [1],
        "loss.content_blocks": [1],
        "train.batch_size": 2,
    },
)


def found(**moves):
    space = Space(search={name.replace("__", "."): Move(**move) for name, move in moves.items()})
    return largest(space, BASE)


def test_largest_trial_has_most_blocks_and_channels():
    trial = found(generator__num_blocks={"int": (1, 3)}, generator__base_channels={"choice": (8, 4)})
    assert trial.values == {"generator.num_blocks": 3, "generator.base_channels": 8}
    assert str(trial) == "generator.num_blocks=3, generator.base_channels=8"
    assert trial.estimate == estimate(trial.config)


def test_largest_trial_compares_all_choices():
    norms, blocks = ("batch", "instance", "none"), ("double", "u")
    trial = found(generator__norm={"choice": norms}, generator__block={"choice": blocks})
    needs = {
        block: estimate(with_values(BASE, {"generator.block": block, "generator.norm": trial.values["generator.norm"]}))
        for block in blocks
    }
    assert trial.estimate == max(needs.values(), key=lambda one: one.bytes_per_worker)
    assert trial.values["generator.norm"] != "none"


def test_largest_trial_tries_smaller_values_of_setting_in_condition():
    trial = found(
        generator__num_blocks={"int": (1, 2)},
        generator__base_channels={"int": (4, 64), "when": "generator.num_blocks < 2"},
    )
    assert trial.values == {"generator.num_blocks": 1, "generator.base_channels": 64}


def test_largest_trial_ignores_learning_rates_and_loss_weights():
    trial = found(optim__generator_lr={"log": (1e-5, 1e-3)}, loss__lambda_style={"log": (1e-5, 1e-3)})
    assert (trial.values, str(trial)) == ({}, "as every trial")


def test_largest_trial_skips_incompatible_values():
    networks, chain = ("casnet", "resnet"), (1, 9)  # casnet chains 8 blocks at most
    trial = found(generator__network={"choice": networks}, generator__num_blocks={"int": chain})
    assert trial.values == {"generator.network": "resnet", "generator.num_blocks": 9}


def test_memory_check_accepts_trial_that_fits():
    trial = found(generator__num_blocks={"int": (1, 3)})
    refuse_what_has_no_memory(trial, trial.estimate.bytes_per_worker, workers=2, device="gpu")
    refuse_what_has_no_memory(trial, 2 * trial.estimate.bytes_per_worker, workers=2, device="cpu")


@pytest.mark.parametrize(("device", "factor"), [("gpu", 1), ("cpu", 2)])
def test_memory_check_refuses_trial_that_does_not_fit(device, factor):
    trial = found(generator__num_blocks={"int": (1, 3)})
    available = int(factor * trial.estimate.bytes_per_worker / CERTAINLY) - factor
    with pytest.raises(
        InputError,
        check=refusal(
            "E-MEMORY-01",
            gigabytes=gigabytes(available // factor),
            gigabytes_2=gigabytes(trial.estimate.bytes_per_worker),
            trial="generator.num_blocks=3",
            smaller="train.batch_size, data.size, generator.num_blocks",
        ),
        match="train.precision=bfloat16",
    ):
        refuse_what_has_no_memory(trial, available, workers=2, device=device)
