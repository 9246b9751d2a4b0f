"""`medgan train --workers 2` on real Ray: batch normalization on two processes, and a worker that is killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from medgan.data.phantoms import write_phantoms
from medgan.engine.checkpoint import read_history

LIMIT_S = 200


class Job:
    """A training on two workers as a person starts it, its output line by line."""

    def __init__(self, preset: str, data: Path, home: Path, *settings: str) -> None:
        tiny = ("data.size=32", "generator.base_channels=4", "discriminator.base_channels=4", "discriminator.patch=16")
        fixed = [part for one in (*tiny, *settings) for part in ("--set", one)]
        arguments = ["train", "--preset", preset, "--data", str(data), "--quick", "--workers", "2", *fixed]
        environment = {**os.environ, "MEDGAN_HOME": str(home)}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        self.home, self.lines = home, []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "medgan.cli", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, pattern: str) -> str:
        """Reads on until a line matches."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern!r} never came:\n{self.text}")

    def end(self) -> int:
        """The exit code."""
        self.lines += self.process.communicate(timeout=LIMIT_S)[0].splitlines()
        return self.process.returncode

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of metrics that the checkpoint holds."""
        (folder,) = (self.home / "checkpoints").iterdir()
        return read_history(folder)

    @property
    def run(self):
        """The training's run in MLflow; there is exactly one."""
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{self.home / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("medgan/pet2ct-phantom")
        (found,) = client.search_runs([experiment.experiment_id])
        return client, found


def workers_of(home: Path) -> list[int]:
    """Process ids of the Ray Train workers that this job's cluster runs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = b"RayTrainWorker" in (process / "cmdline").read_bytes()
            if is_worker and f"MEDGAN_HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=8, matrix=64)


def recorded_steps(job: Job) -> list[int]:
    client, found = job.run
    return [point.step for point in client.get_metric_history(found.info.run_id, "val/ssim")]


@pytest.mark.timeout(LIMIT_S)
def test_a_network_with_batch_normalization_trains_on_two_workers_to_the_end(dicom, tmp_path):
    job = Job("pix2pix", dicom, tmp_path / "home", "generator.norm=batch", "train.epochs=2")
    assert job.end() == 0, job.text
    assert re.search(r"^workers +2 DDP processes$", job.text, re.M)
    assert "starting Ray ..." in job.text
    assert re.findall(r"^epoch (\S+):", job.text, re.M) == ["1/2", "2/2"]
    assert "restarts" not in job.text
    assert "Registered medgan-pet2ct-phantom version 1." in job.text
    assert recorded_steps(job) == [1, 2]
    assert len(job.history) == 2
    assert job.run[1].data.tags["medgan.state"] == "complete"
    assert not (tmp_path / "home" / "ray").exists() or not list((tmp_path / "home" / "ray").iterdir())
    assert not workers_of(job.home)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_a_training_whose_worker_is_killed_goes_on_from_its_checkpoint(dicom, tmp_path):
    epochs = 25
    job = Job("cyclegan", dicom, tmp_path / "home", "generator.num_blocks=1", f"train.epochs={epochs}")
    job.until(rf"^epoch 2/{epochs}")
    pids = workers_of(job.home)
    assert len(pids) == 2
    os.kill(pids[-1], signal.SIGKILL)
    assert job.end() == 0, job.text
    (lost,) = re.findall(r" in epoch (\d+); the worker group restarts$", job.text, re.M)
    (went_on,) = re.findall(r"^goes on after epoch (\d+), from its checkpoint$", job.text, re.M)
    assert 2 <= int(went_on) < epochs
    assert int(went_on) >= int(lost) - 1
    shown = [int(number) for number in re.findall(r"^epoch (\d+)/", job.text, re.M)]
    assert shown[-1] == epochs and shown == sorted(set(shown))
    assert recorded_steps(job) == list(range(1, epochs + 1))
    assert len(job.history) == epochs
    assert (job.run[1].info.status, job.run[1].data.tags["medgan.state"]) == ("FINISHED", "complete")
    assert not workers_of(job.home)
