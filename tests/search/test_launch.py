"""The outlook that a user reads before a search, and the arithmetic behind it."""

import time

import pytest
from refusal import refusal

from medgan.distributed.resources import Capacity, Resources
from medgan.errors import InputError
from medgan.search.forecast import Forecast
from medgan.search.largest_trial import Largest
from medgan.search.launch import Launch, Outlook, lines, outlook
from medgan.search.parameters import Move
from medgan.search.space import Checkpoints, Space
from medgan.search.space_yaml import read_space
from medgan.training.memory_estimate import Estimate

NEEDS = Estimate(
    generator_parameters=5_000_000,
    discriminator_parameters=2_000_000,
    bytes_per_worker=3_000_000_000,
    checkpoint_bytes=100_000_000,
    kept_bytes=20_000_000,
    flops_per_step=10**9,
)
QUICK = read_space("quick", {})


def outlook_of(forecast=None, **launch):
    """Returns the outlook of four trials of 100 s on two of four cores each, two at once."""
    given = {
        "capacity": Capacity(4, 0),
        "resources": Resources(2),
        "concurrent": 2,
        "num_slices": 100,
        "trials": 4,
        **launch,
    }
    trial = Largest(QUICK.base({}), {"generator.num_blocks": 3}, NEEDS)
    return Outlook(Launch(**given), NEEDS, trial, forecast or Forecast(10.0, 10.0, 2), keep=3, max_bytes=None)


def test_device_hours_sum_all_devices_of_all_trials():
    assert outlook_of().device_hours == pytest.approx(4 * 2 * 100 / 3600)


@pytest.mark.parametrize(
    ("limit", "trials"),
    [
        ({}, 4),
        ({"device_hours": 1.0}, 4),
        ({"device_hours": 3.5 * 200 / 3600}, 3),
        ({"hours": 130 / 3600}, 2),
        ({"hours": 10 / 3600}, 0),
        ({"hours": 230 / 3600, "device_hours": 250 / 3600}, 1),
    ],
)
def test_affordable_trials_are_limited_by_budget(limit, trials):
    assert outlook_of(**limit).affordable == trials


def test_study_bytes_sum_running_and_kept_checkpoints():
    assert outlook_of().study_bytes == 2 * 100_000_000 + 3 * 20_000_000


def test_study_bytes_apply_limit_to_kept_checkpoints_only():
    space = QUICK.model_copy(update={"checkpoints": Checkpoints(keep=50, max_gb=0.05)})
    found = outlook(space, space.base({}), Launch(Capacity(2, 0), Resources(2), 1, num_slices=100, trials=0))
    assert (found.keep, found.max_bytes) == (50, 50_000_000)
    assert found.study_bytes == found.largest.estimate.checkpoint_bytes + 50_000_000


def test_launch_lines_describe_groups_memory_time_and_budget():
    counted = "4 trials of about 10 epochs each"
    assert lines(outlook_of(memory_bytes=16_000_000_000, device_hours=0.1, hours=2.0)) == {
        "groups": "2 of 2 that fit at once; each takes 2 workers of 1 CPU core; 4 CPU cores are the limit",
        "networks": "generator 5 M parameters, discriminator 2 M",
        "memory": "at most about 3 GB a worker (generator.num_blocks=3), of 16 GB here",
        "disk": "at most 0.1 GB a running trial, 0.02 GB a kept one; 0.26 GB for the study",
        "expected": f"about 4 min, 0.22 core-hours, for {counted} (measured)",
        "budget": "0.1 core-hours and 2 h 00 min left: enough for about 1 of the 4 trials",
    }


def test_launch_lines_name_gpus_as_limit_where_scarcer_than_cores():
    facts = lines(outlook_of(capacity=Capacity(64, 3), resources=Resources(1, 2, "gpu"), hours=10.0))
    each = "each takes 1 worker of 1 GPU and 2 CPU cores"
    assert facts["groups"] == f"2 of 3 that fit at once; {each}; 3 GPUs are the limit"
    assert "GPU-hours" in facts["expected"]
    assert facts["budget"] == "10 h 00 min left: enough for all of the 4 trials"


def test_launch_lines_warn_when_concurrent_trials_exceed_memory():
    text = lines(outlook_of(memory_bytes=7_000_000_000))["memory"]
    assert text.endswith("; 2 such trials at once need 12 GB, more than the 7 GB here")


def test_launch_lines_without_forecast_promise_time_after_first_epochs():
    facts = lines(outlook_of(Forecast(None, 10.0, 2), device_hours=1.0))
    assert facts["expected"].startswith("known after the first epochs, for 4 trials")
    assert facts["budget"] == "1 core-hours left"


def test_launch_lines_of_finished_study_expect_no_trial():
    facts = lines(outlook_of(trials=0, hours=1.0))
    assert facts["expected"] == "no trial is missing"
    assert "budget" not in facts


def test_outlook_refuses_space_whose_largest_trial_does_not_fit():
    launch = Launch(Capacity(2, 0), Resources(2), 1, num_slices=100, trials=8, memory_bytes=1 << 29)
    with pytest.raises(InputError, check=refusal("E-MEMORY-01", gigabytes="0.268 GB"), match="generator.num_blocks=3"):
        outlook(QUICK, QUICK.base({}), launch)


def test_launch_lines_say_that_space_has_no_discriminator():
    space = Space(preset="unet_l1", search={"optim.generator_lr": Move(log=(1e-5, 1e-3))})
    base = space.base({"data.size": 64, "generator.base_channels": 4})
    found = outlook(space, base, Launch(Capacity(2, 0), Resources(1), 2, num_slices=10, trials=0))
    assert lines(found)["networks"].endswith("parameters, no discriminator")


def test_outlook_of_published_size_takes_seconds():
    space = read_space("pet2ct", {})
    launch = Launch(Capacity(2, 0), Resources(2), 1, num_slices=800, trials=40, memory_bytes=64 << 30)
    began = time.process_time()
    found = outlook(space, space.base({}), launch)
    assert time.process_time() - began < 10  # about 4 on a machine that does nothing else
    assert found.forecast.basis == "estimated"
    assert found.largest.estimate.generator_parameters == 326_479_878  # six U-blocks of eight layers
    assert found.largest.values["generator.num_blocks"] == 6
