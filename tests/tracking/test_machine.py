"""What the driver's machine is busy with."""

import pytest

from medgan.tracking import machine
from medgan.tracking.machine import Machine

USED = "system/system_memory_usage_percentage"
BUSY = "system/cpu_utilization_percentage"


def test_it_says_what_share_of_cores_and_memory_is_in_use():
    looked = Machine()
    sum(range(10**6))
    values = looked.now()
    assert 0 <= values[BUSY] <= 100
    assert 0 < values[USED] < 100
    assert values["system/system_memory_usage_megabytes"] > 1


def test_it_looks_again_only_after_a_while():
    looked = Machine()
    assert looked.now() is looked.now()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo '37, 1024'", {"system/gpu_0_utilization_percentage": 37, "system/gpu_0_memory_usage_megabytes": 1073.7}),
        ("echo '[N/A], [N/A]'", {}),
        ("exit 9", {}),
    ],
)
def test_gpus_are_read_from_what_nvidia_says_if_it_says_anything(tmp_path, answer, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    assert machine._gpus(str(program)) == expected
