"""Memory, parameters and FLOPs counted on shapes, compared with real steps and numbers worked by hand."""

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medgan.config import with_values
from medgan.presets.by_name import PRESETS
from medgan.presets.medgan import medgan
from medgan.search.machine_memory import available_bytes
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.checkpoint import BEST, LAST, save_state, save_tensors
from medgan.training.memory_estimate import PROCESS_BYTES, Tally, estimate, gigabytes
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step

STEP = """
import json, sys, torch
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.config import with_values
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step
from medgan.presets.by_name import PRESETS
torch.set_num_threads(1)
config = with_values(PRESETS[sys.argv[1]](), json.loads(sys.argv[2]))
state, objective = build_state(config, SingleProcess(torch.device("cpu"))), build_objective(config)
images = torch.zeros(2, config.train.batch_size, 1, config.data.size, config.data.size)
for _ in range(2):
    train_step(state, objective, iter([tuple(images)] * updates_of(config).batches), updates_of(config))
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) << 10)
"""
"""Takes two real steps in a new process, as Adam's moments exist from the second on, and prints the most memory of this
process in bytes. (`getrusage` would also count the memory of the process that started it.)"""
TINY = {
    "data.size": 32,
    "generator.num_blocks": 1,
    "generator.base_channels": 4,
    "discriminator.base_channels": 4,
    "loss.style_blocks": [1],
    "loss.content_blocks": [1],
    "train.batch_size": 2,
    "extractor.weights": "random",
}


def tiny(**values):
    return with_values(medgan(), {**TINY, **{name.replace("__", "."): value for name, value in values.items()}})


CHAIN = {
    "generator__num_blocks": 8, "train__batch_size": 64, "loss__lambda_perceptual": 0.0, "loss__lambda_style": 0.0,
    "loss__lambda_content": 0.0, "loss__lambda_l1": 1.0, "loss__lambda_adversarial": 0.0,
}  # fmt: skip
"""Settings with which the generator needs nearly all the memory."""


def tensors_of(found):
    """Returns the bytes of an estimate without those of the process itself."""
    return found.bytes_per_worker - PROCESS_BYTES["cpu"]


def one_step(config):
    state = build_state(config, SingleProcess(torch.device("cpu")))
    images = torch.zeros(2, config.train.batch_size, 1, config.data.size, config.data.size)
    updates = updates_of(config)
    train_step(state, build_objective(config), iter([tuple(images)] * updates.batches), updates)
    return state


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("medgan", {"data.size": 64, "train.batch_size": 4, "generator.num_blocks": 1, "extractor.weights": "random"}),
        ("pix2pix", {"data.size": 128, "train.batch_size": 4, "generator.base_channels": 32}),
        ("cyclegan", {"data.size": 64, "train.batch_size": 1, "discriminator.patch": 34}),
        (
            "medgan",
            {
                "data.size": 64, "train.batch_size": 16, "train.accumulate": 2, "generator.num_blocks": 3,
                "generator.base_channels": 16, "generator.recompute": "blocks", "extractor.weights": "random",
            },
        ),
    ],
)  # fmt: skip
def test_estimate_agrees_with_memory_of_real_step(preset, values):
    run = subprocess.run(
        [sys.executable, "-c", STEP, preset, json.dumps(values)], capture_output=True, text=True, check=True
    )
    estimated = estimate(with_values(PRESETS[preset](), values)).bytes_per_worker
    print(f"{preset}: estimated {gigabytes(estimated)}, held {gigabytes(int(run.stdout))}")
    assert 0.7 < estimated / int(run.stdout) < 1.6


def test_estimate_counts_parameters_and_checkpoint_of_networks(tmp_path):
    config = tiny()
    state, found = one_step(config), estimate(tiny())
    assert found.generator_parameters == sum(one.numel() for one in state.generator.parameters())
    assert found.discriminator_parameters == sum(one.numel() for one in state.directions[0].discriminator.parameters())
    save_state(tmp_path, state)
    save_tensors(tmp_path / BEST, {name: one.contiguous() for name, one in state.best_generator.state_dict().items()})
    pictures = 3 * 4 * 4 * 32**2
    on_disk = sum((tmp_path / name).stat().st_size for name in (LAST, BEST)) + pictures
    assert found.checkpoint_bytes == pytest.approx(
        on_disk, rel=0.25
    )  # networks this small have relatively large file headers
    assert found.kept_bytes == pytest.approx((tmp_path / BEST).stat().st_size + pictures, rel=0.25)


@pytest.mark.parametrize("steps", [{}, {"train__generator_steps": 1, "train__discriminator_steps": 3}])
def test_estimate_counts_flops_of_real_step(steps):
    with FlopCounterMode(display=False) as counter:
        one_step(tiny(**steps))
    assert estimate(tiny(**steps)).flops_per_step == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize(
    "more",
    [
        {"train__batch_size": 16},
        {"generator__num_blocks": 3},
        {"generator__base_channels": 16},
        {"data__size": 64},
        {"loss__lambda_cycle": 1.0},
        {"train__ema_decay": 0.9},
    ],
)
def test_estimate_grows_with_each_setting(more):
    assert estimate(tiny(**more)).bytes_per_worker > estimate(tiny()).bytes_per_worker


def test_estimate_divides_batch_among_workers():
    alone, shared = (estimate(tiny(train__batch_size=16), workers=workers) for workers in (1, 4))
    assert shared.bytes_per_worker < alone.bytes_per_worker
    assert shared.flops_per_step == pytest.approx(alone.flops_per_step / 4, rel=0.05)


def test_estimate_is_lower_in_bfloat16():
    assert (
        estimate(tiny(train__precision="bfloat16", train__batch_size=64)).bytes_per_worker
        < estimate(tiny(train__batch_size=64)).bytes_per_worker
    )


def test_estimate_is_lower_for_batch_in_parts_with_same_flops():
    whole, parts = (estimate(tiny(train__batch_size=64, train__accumulate=number)) for number in (1, 8))
    assert tensors_of(parts) < 0.4 * tensors_of(whole)
    assert parts.flops_per_step == pytest.approx(whole.flops_per_step, rel=0.01)


def test_estimate_with_recompute_is_lower_in_memory_and_higher_in_flops():
    kept, again = (estimate(tiny(**CHAIN, generator__recompute=how)) for how in ("none", "blocks"))
    assert tensors_of(again) < 0.4 * tensors_of(kept)
    assert 1.2 < again.flops_per_step / kept.flops_per_step < 1.35


def test_estimate_accepts_every_preset():
    for preset in PRESETS.values():
        assert estimate(with_values(preset(), {"extractor.weights": "random"})).flops_per_step > 0


def test_estimate_leaves_random_state_unchanged():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    estimate(tiny(train__seed=11))
    assert torch.equal(torch.get_rng_state(), before)


def test_tally_counts_tensor_once_while_alive():
    with Tally() as tally:
        image = torch.zeros(10, 10, device="meta")
        flat = image.view(100)
        assert tally.held == 400
        twice = image + image
        assert tally.held == 800
        del twice, flat
        assert (tally.held, tally.most) == (400, 800)


def test_tally_counts_two_flops_per_multiplication():
    with Tally() as tally:
        torch.zeros(3, 4, device="meta") @ torch.zeros(4, 5, device="meta")
    assert tally.flops == 2 * 3 * 4 * 5


def test_available_bytes_finds_memory_of_machine():
    assert available_bytes("cpu") > 1 << 30
    assert (available_bytes("gpu") is None) == (not torch.cuda.is_available())


def test_gigabytes_formats_bytes_with_unit():
    assert gigabytes(11_452_000_000) == "11.5 GB"
