"""The load of the driver's machine is measured without delaying the driver."""

import os
import time

import pytest

from medgan.tracking import system_metrics as machine
from medgan.tracking.system_metrics import Machine

USED = "system/system_memory_usage_percentage"
BUSY = "system/cpu_utilization_percentage"


def test_machine_reports_used_share_of_cores_and_memory():
    looked = Machine()
    while machine._ticks() == looked.ticks:  # the kernel counts in hundredths of a second
        pass
    values = looked.now()
    assert 0 <= values[BUSY] <= 100
    assert 0 < values[USED] < 100
    assert values["system/system_memory_usage_megabytes"] > 1


def test_machine_measures_again_only_after_interval():
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
def test_gpus_reads_output_of_nvidia_smi(tmp_path, answer, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    assert machine._gpus(str(program)) == expected


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Returns a function that puts a program with this answer on the path; that returns a count of its runs."""
    runs, program = tmp_path / "runs", tmp_path / "nvidia-smi"
    runs.touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def make(answer):
        program.write_text(f"#!/bin/sh\necho >> {runs}\n{answer}\n")
        program.chmod(0o755)
        return lambda: len(runs.read_text())

    return make


def test_add_gpus_adds_to_recent_values_only(nvidia_smi):
    times, looked, late, values = nvidia_smi("echo '37, 1024'"), Machine(), {}, {"val/ssim": 0.5}
    looked.add_gpus(late, time.monotonic() - machine.EVERY_S)
    assert (times(), late) == (0, {})
    for _ in range(2):
        looked.add_gpus(values, time.monotonic())
    assert (times(), values["val/ssim"], values["system/gpu_0_utilization_percentage"]) == (1, 0.5, 37)


@pytest.mark.parametrize("answer", ["exit 9", "exec sleep 60"])
@pytest.mark.timeout(30)
def test_add_gpus_runs_failing_program_once(nvidia_smi, monkeypatch, answer):
    monkeypatch.setattr(machine, "LIMIT_S", 1)
    times, looked, values = nvidia_smi(answer), Machine(), {}
    for _ in range(2):
        looked.add_gpus(values, time.monotonic())
        looked.gpus_seen = -machine.EVERY_S
    assert (times(), values) == (1, {})


def test_machine_runs_no_program_for_cores_and_memory(nvidia_smi):
    times = nvidia_smi("exec sleep 60")
    assert USED in Machine().now()
    assert times() == 0
