"""`medgan train --workers 2` on real Ray: batch normalization on two processes, and a worker that is killed."""

import re
from pathlib import Path

import mlflow
import pytest

from medgan.training.checkpoint import read_history

LIMIT_S = 200
TINY = ("data.size=32", "generator.base_channels=4", "discriminator.base_channels=4", "discriminator.patch=16")


@pytest.fixture
def train(command, dicom, tmp_path):
    """`train(preset, *settings)`: starts a small training on two workers."""

    def start(preset: str, *settings: str):
        fixed = [part for one in (*TINY, *settings) for part in ("--set", one)]
        arguments = ["train", "--preset", preset, "--data", str(dicom), "--quick", "--workers", "2", *fixed]
        return command(tmp_path / "home", "-m", "medgan.cli.main", *arguments)

    return start


def run_of(home: Path):
    """The training's run in MLflow; there is exactly one."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medgan/pet2ct-phantom")
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def history_of(home: Path) -> list[dict[str, float]]:
    """The rows of metrics that the checkpoint holds."""
    (folder,) = (home / "checkpoints").iterdir()
    return read_history(folder)


def recorded_steps(home: Path) -> list[int]:
    client, found = run_of(home)
    return [point.step for point in client.get_metric_history(found.info.run_id, "val/ssim")]


@pytest.mark.timeout(LIMIT_S)
def test_batch_normalization_trains_on_two_workers(train, workers_of):
    job = train("pix2pix", "generator.norm=batch", "train.epochs=2")
    assert job.end() == 0, job.text
    assert re.search(r"^workers +2 DDP processes$", job.text, re.M)
    assert "starting Ray ..." in job.text
    assert re.findall(r"^epoch (\S+):", job.text, re.M) == ["1/2", "2/2"]
    assert "restarts" not in job.text
    assert "Registered medgan-pet2ct-phantom version 1." in job.text
    assert recorded_steps(job.home) == [1, 2]
    assert len(history_of(job.home)) == 2
    assert run_of(job.home)[1].data.tags["medgan.state"] == "complete"
    assert not (job.home / "ray").exists() or not list((job.home / "ray").iterdir())
    assert not workers_of(job.home)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_training_continues_from_checkpoint_after_worker_was_killed(train, workers_of):
    epochs = 25
    job = train("cyclegan", "generator.num_blocks=1", f"train.epochs={epochs}")
    job.until(rf"^epoch 2/{epochs}")
    first, last = workers_of(job.home)
    last.kill()
    assert job.end() == 0, job.text
    (lost,) = re.findall(r" in epoch (\d+); the worker group restarts$", job.text, re.M)
    (went_on,) = re.findall(r"^continues after epoch (\d+), from its checkpoint$", job.text, re.M)
    assert 2 <= int(went_on) < epochs
    assert int(went_on) >= int(lost) - 1
    shown = [int(number) for number in re.findall(r"^epoch (\d+)/", job.text, re.M)]
    assert shown[-1] == epochs and shown == sorted(set(shown))
    assert recorded_steps(job.home) == list(range(1, epochs + 1))
    assert len(history_of(job.home)) == epochs
    assert (run_of(job.home)[1].info.status, run_of(job.home)[1].data.tags["medgan.state"]) == ("FINISHED", "complete")
    assert not workers_of(job.home)
