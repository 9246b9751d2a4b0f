"""Every part of the benchmark on a very small MedGAN, and the job as a user starts it."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusal import refusal

from medgan.benchmark import bench_data as data
from medgan.benchmark import bench_inference as inference
from medgan.benchmark import bench_memory as memory
from medgan.benchmark import bench_quality as quality
from medgan.benchmark import bench_scaling as scaling
from medgan.benchmark import bench_step as step
from medgan.benchmark import bench_validation as validation
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.plain_method import QUICK
from medgan.benchmark.timing import is_fast_in_bfloat16
from medgan.config import with_values
from medgan.errors import JobError
from medgan.training.autotune import Speed

CPU = torch.device("cpu")
SMALL = replace(QUICK, size=32, base_channels=4, batch_size=2)
JOB = Path(__file__).parents[2] / "jobs" / "benchmark.py"
ALONE = """
import runpy
import sys

class Blocked:
    names = set("ray mlflow optuna pydicom pydantic safetensors torchmetrics scipy rich typer yaml SimpleITK".split())

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())

from dataclasses import replace
import torch
from medgan.benchmark import bench_inference as inference, bench_step as step
from medgan.benchmark.plain_method import QUICK

torch.set_num_threads(1)
small = replace(QUICK, size=32, base_channels=4, batch_size=2)
for part in (step, inference):
    assert part.compare(small, torch.device("cpu"), limit_s=0.0)[0].ratio
sys.argv = ["benchmark.py", "--quick", "--part", "data"]
runpy.run_path(JOB, run_name="__main__")
"""


def small_config():
    return with_values(data.quick_config(), {"data.size": 32, "generator.base_channels": 4, "train.batch_size": 2})


def test_step_compare_measures_engine_against_plain_step():
    engine, *others, plain, share = step.compare(SMALL, CPU, limit_s=0.0, wanted=">= 1.3x")
    assert (engine.figure, engine.against, engine.wanted) == ("engine, float32", plain.figure, ">= 1.3x")
    assert engine.ratio.low <= engine.ratio.median <= engine.ratio.high
    assert engine.value.median > 0 < plain.value.median
    assert plain.ratio is None
    assert [row.figure for row in (engine, *others)] == list(step.options(CPU))
    assert others[0].figure == "engine, float32, channels_last"
    assert all(row.ratio.median > 0 and row.against == plain.figure for row in others)
    assert 0 < share.value.median < 200
    assert "GFLOP a step; the peak is a float32 matrix product's" in share.note


def test_step_compare_reports_option_that_does_not_compile(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    tried = {step.ENGINE: ("float32", step.EAGER), "compiled": ("float32", Speed(compiled="default"))}
    *_, compiled, _ = step.compare(SMALL, CPU, limit_s=0.0, tried=tried)
    assert (compiled.figure, compiled.value, compiled.note) == ("compiled", None, "RuntimeError: no compiler here")


def test_counted_operations_grow_equally_with_each_block():
    shallow, deep = (step.counted(step.engine_step(replace(SMALL, num_blocks=blocks), CPU)) for blocks in (1, 2))
    more = step.counted(step.engine_step(replace(SMALL, num_blocks=3), CPU)) - deep
    assert shallow < deep
    assert more == pytest.approx(deep - shallow, rel=0.01), "each block costs the same"


def test_schedule_is_not_measured_without_gpu():
    (row,) = step.schedule(SMALL, CPU, steady_s=0.0)
    assert (row.value, row.note) == (None, "no CUDA device")


def test_schedule_minutes_are_extrapolated_from_steady_steps(monkeypatch):
    monkeypatch.setattr(step, "in_turns", lambda *_, **__: {"step": [0.6, 0.6, 0.6]})
    assert step.minutes(SMALL, CPU, steady_s=0.0).median == pytest.approx(1935 * 200 / (3 * 2) * 0.6 / 60)


def test_best_batch_is_power_of_two(monkeypatch):
    monkeypatch.setattr(step, "LARGEST_BATCH", 4)
    assert step.best_batch(SMALL, CPU, limit_s=0.0) in (1, 2, 4)


def test_free_gb_is_positive():
    assert 0 < step.free_gb() < 100_000


def test_inference_compare_measures_slices_and_batches_against_loop():
    alone, batched, last, _, *more, loop = inference.compare(SMALL, CPU, limit_s=0.0)
    assert [row.unit for row in (alone, batched, loop)] == ["ms", "slices/s", "slices/s"]
    assert (alone.figure, last.figure) == (
        "a slice alone, float32, contiguous",
        "a slice alone, float32, channels_last",
    )
    assert alone.ratio.median > 0 < batched.ratio.median
    assert bool(more) == is_fast_in_bfloat16(CPU)
    assert loop.ratio is None


def test_inference_translate_equals_loop():
    network, slices = inference.network_for(SMALL, CPU), torch.rand(20, 1, 32, 32)
    assert len(network.blocks) == 6
    torch.testing.assert_close(inference.translate(network, slices), inference.looped(network, slices))


def test_data_wait_is_share_of_step():
    waiting, ready, consumed = data.of(small_config(), CPU, limit_s=0.0)
    assert 0 < waiting.value.median < 100
    assert ready.ratio.median == pytest.approx(ready.value.median / consumed.value.median, rel=0.9)


def test_validation_time_is_share_of_epoch():
    plain, whole = validation.of(small_config(), CPU, epochs=1)
    assert plain.value.median > 0
    assert 0 < whole.value.median < 100


def test_quality_compare_measures_fast_options_against_plain_by_seed(tmp_path):
    dataset = prepared_phantoms(tmp_path, size=32, patients=3, slices=4)
    fast, plain, apart = quality.compare(dataset, SMALL, CPU, steps=2)
    assert fast.figure.startswith("every option on (") and "channels_last" in fast.figure
    assert fast.value.median != plain.value.median, "another precision, or another rounding"
    assert apart.value.median == pytest.approx(0, abs=0.05)


def test_quality_rows_want_difference_within_reference_spread():
    fast, plain, apart = quality.rows_of({"fast": [0.5, 0.6, 0.7], "plain": [0.5, 0.8, 0.8]}, settings="", device="")
    assert apart.value.median == pytest.approx(-0.1)
    assert apart.wanted == "within 0.3000 of 0"
    assert fast.note == "seeds: 0.5000, 0.6000, 0.7000"


def test_memory_rows_compare_first_and_last_measurement():
    first, last, growth = memory.rows_of({20: 100_000_000, 110: 99_000_000, 200: 103_600_000}, settings="", device="")
    assert (first.value.median, last.value.median) == (100.0, pytest.approx(103.6))
    assert growth.value.median == pytest.approx(3.6)
    assert growth.note == "2.0 MB a 100 trials; in between 99 to 104 MB"


def test_memory_measurements_use_networks_of_equal_size():
    for last in (memory.TRIALS, memory.QUICK_TRIALS):
        assert (last - memory.SETTLED) % len(memory.SIZES) == 0


@pytest.mark.timeout(240)
def test_scaling_compare_measures_two_processes_against_one():
    two, one = scaling.compare(replace(SMALL, batch_size=4), limit_s=0.0)
    assert two.ratio.median > 0
    assert (two.against, one.ratio) == (one.figure, None)


def test_scaling_is_not_measured_on_gpu():
    (row,) = scaling.measure(quick=True, device=torch.device("cuda"))
    assert (row.value, row.note) == (None, "a figure of the CPU")


@pytest.mark.timeout(120)
def test_scaling_step_refuses_silent_and_ended_process():
    silent = pytest.raises(JobError, check=refusal("E-BENCH-01", limit_s=0.0, rank=0))
    with scaling.processes(SMALL, size=1, threads=1) as lines, silent:
        scaling.step(lines, limit_s=0.0)
    end = time.monotonic() + 30
    with pytest.raises(JobError, check=refusal("E-BENCH-02", rank=0)):
        while time.monotonic() < end:
            scaling.step(lines, limit_s=10.0)


def run_job(*arguments, limit_s=200):
    return subprocess.run([sys.executable, JOB, *arguments], capture_output=True, text=True, timeout=limit_s)


@pytest.mark.timeout(120)
def test_step_and_inference_parts_need_only_torch_and_numpy():
    done = subprocess.run(
        [sys.executable, "-c", ALONE.replace("JOB", repr(str(JOB)))], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "not measured" in done.stdout
    assert "is not installed" in done.stdout


@pytest.mark.timeout(120)
def test_benchmark_job_prints_table_and_writes_file(tmp_path):
    done = run_job("--quick", "--part", "inference", "--out", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    assert "batches of 16" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["part"] for row in found["rows"]} == {"inference"}
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cores"] >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--part", "speed"], "invalid choice: 'speed'"),
        (["--quick", "--data", "/nowhere"], "--data is for the parts quality and shares; add --part quality"),
        (["--part", "quality", "--data", "/nowhere"], "[E-DATASET-04]"),
        (["--part", "quality", "--data", "/nowhere"], "/nowhere: "),
        (["--out", "/nowhere/found.json"], "expected a file in a folder that exists; there is no /nowhere"),
        pytest.param(
            ["--device", "cuda"],
            "torch finds no CUDA device here; leave --device out",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_benchmark_job_refuses_invalid_arguments(arguments, message):
    done = run_job(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.timeout(120)
def test_benchmark_job_refuses_unreachable_cluster_in_one_line(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    done = run_job("--quick", "--part", "handover")
    assert done.returncode == 2
    assert done.stderr.startswith("RAY_ADDRESS nowhere: ")
    assert done.stderr.endswith("[E-CLUSTER-03]\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(240)
def test_resident_group_hands_over_faster_than_new_trainers_start(tmp_path):
    done = run_job("--quick", "--part", "handover", "--out", str(tmp_path / "found.json"), limit_s=230)
    assert done.returncode == 0, done.stderr
    resident, anew = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert resident["ratio"]["median"] > 10, "wanted is 50, on a machine that does nothing else"
    assert anew["ratio"] is None


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_resident_group_memory_stays_flat_over_trials_of_changing_size(tmp_path):
    done = run_job("--quick", "--part", "memory", "--out", str(tmp_path / "found.json"), limit_s=230)
    assert done.returncode == 0, done.stderr
    *_, growth = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert growth["value"]["median"] <= 5
