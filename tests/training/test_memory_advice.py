"""After an out-of-memory error: the settings that need less memory, and how much."""

import re

import pytest

from medgan.config import Config, with_values
from medgan.training.memory_advice import what_needs_less
from medgan.training.memory_estimate import estimate, gigabytes

LARGE = {
    "data.size": 64, "train.batch_size": 512, "generator.num_blocks": 3, "generator.base_channels": 16,
    "generator.depth": 2, "loss.lambda_adversarial": 0.0, "loss.lambda_l1": 1.0,
}  # fmt: skip


def large(**values):
    return with_values(Config(), LARGE | {name.replace("__", "."): value for name, value in values.items()})


def advice(message):
    """Returns setting -> (value, memory) of the settings that the message names."""
    return {path: (value, figure) for path, value, figure in re.findall(r"([\w.]+)=(\w+)[^=;]* \((.*? GB)\)", message)}


def test_what_needs_less_names_settings_with_value_and_memory():
    message, needed = what_needs_less(large()), gigabytes(estimate(large()).bytes_per_worker)
    assert message.startswith(
        f"out of memory with train.batch_size=512 at 64 px, about {needed} a process; what takes "
    )
    assert "train.accumulate=2, the same batch in 2 parts (" in message
    assert "generator.recompute=blocks, the same result in a third more time (" in message
    named = advice(message)
    assert {path: value for path, (value, _) in named.items()} == {
        "train.batch_size": "256",
        "train.accumulate": "2",
        "generator.recompute": "blocks",
        "generator.base_channels": "8",
    }
    for path, (value, figure) in named.items():
        changed = with_values(large(), {path: int(value) if value.isdigit() else value})
        assert figure == gigabytes(estimate(changed).bytes_per_worker)
        assert float(figure.split()[0]) < 0.9 * float(needed.split()[0])


def test_what_needs_less_advises_bfloat16_only_on_gpu():
    assert "train.precision=bfloat16 (" in what_needs_less(large(), device="gpu")
    assert "train.precision" not in what_needs_less(large(train__precision="bfloat16"), device="gpu")


@pytest.mark.parametrize(
    ("values", "workers", "left_out"),
    [
        ({"train__batch_size": 1}, 1, {"train.batch_size", "train.accumulate"}),
        ({"train__batch_size": 6}, 2, {"train.accumulate"}),
        ({"train__batch_size": 48, "train__accumulate": 16}, 1, {"train.batch_size"}),
        ({"train__batch_size": 8}, 8, {"train.batch_size", "train.accumulate"}),
        ({"generator__norm": "batch"}, 1, {"generator.recompute"}),
        ({"generator__network": "resnet"}, 1, {"generator.recompute"}),
        ({"generator__recompute": "blocks"}, 1, {"generator.recompute"}),
        ({"loss__lambda_mmd": 1.0}, 1, {"train.accumulate"}),
    ],
)
def test_what_needs_less_omits_settings_that_cannot_change(values, workers, left_out):
    assert not left_out & advice(what_needs_less(large(**values), workers=workers)).keys()


def test_what_needs_less_divides_batch_among_workers():
    alone, shared = (advice(what_needs_less(large(), workers=workers)) for workers in (1, 4))
    assert float(shared["train.batch_size"][1].split()[0]) < float(alone["train.batch_size"][1].split()[0])


def test_what_needs_less_says_if_no_setting_helps():
    tiny = large(data__size=16, generator__base_channels=2, generator__num_blocks=1, train__batch_size=1)
    message = what_needs_less(tiny)
    assert re.fullmatch(
        r"out of memory with train.batch_size=1 at 16 px, about 0.\d+ GB a process; "
        r"no setting alone lowers that; other processes might",
        message,
    )
