"""What a trial costs the driver: processor time, and memory that does not grow with the study."""

import gc
import os
import random
import time
from pathlib import Path

import pytest
import ray
from ray import tune

from medgan.config import Config
from medgan.distributed.cluster import SETTINGS
from medgan.distributed.resources import Resources
from medgan.provenance import job_facts
from medgan.search import run_trials as run
from medgan.search.budget import Meter
from medgan.search.checkpoint_retention import Retention
from medgan.search.mlflow_sync import Recorder
from medgan.search.parameters import Move
from medgan.search.run_trials import SearchJob, run_search
from medgan.search.space import Budget, Space
from medgan.search.study import Identity, finished, open_study
from medgan.tasks import TASKS
from medgan.tracking.mlflow_runs import MlflowStudy

TRIALS = int(os.environ.get("MEDGAN_TRIALS", 60))
MAX_CPU_S = 0.15
"""Of Tune, Optuna and MLflow together, the latter's SQLite store in the same process; it tells a cost that doubles."""
SPACE = Space(
    search={
        "loss.lambda_perceptual": Move(log=(1.0, 100.0)),
        "loss.lambda_style": Move(log=(1e-5, 1e-1)),
        "generator.num_blocks": Move(int=(1, 3)),
    },
    sampler="random",
)


class NoTraining(tune.Trainable):
    """A trial of one epoch that computes nothing."""

    def setup(self, config):
        self.reset_config(config)

    def reset_config(self, new_config):
        return True

    def step(self):
        row = {"val/ssim": random.random(), "val/mae_hu": 100.0, "time/epoch_s": 0.0, "loss/generator/l1": 1.0}
        seen = {
            "objective": row["val/ssim"],
            "values": [row["val/ssim"]],
            "now": [row["val/ssim"]],
            "shares": [],
            "trained_s": 360.0,
            "best": [*row.items()],
            "metrics": row,
        }
        return {"state": "complete", "reason": "", "epoch": 1, "events": [], "done": True, **seen}

    def save_checkpoint(self, checkpoint_dir): ...

    def load_checkpoint(self, checkpoint): ...


@pytest.fixture
def cluster(monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # where workers find what is defined here
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    yield
    ray.shutdown()


def resident_mb():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(900)
def test_driver_spends_little_on_a_trial_and_frees_its_memory(cluster, tmp_path, monkeypatch):
    """MEDGAN_TRIALS=1000 for the long form."""
    monkeypatch.setattr(run, "TuneTrial", NoTraining)
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"), sampler="random")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = MlflowStudy(uri, "medgan/pet2ct", artifacts=tmp_path, study="s", key="k")
    memory = []

    def search(target):
        job = SearchJob(SPACE, Config(), tmp_path, tmp_path, tmp_path / "ray", Resources(1), 1, target)
        facts = job_facts(data_digest="a", split_digest="b")
        retention = Retention(study, tmp_path, SPACE.checkpoints)
        recorder = Recorder(
            tracking.trial, study=study, task=TASKS["pet2ct"], facts=facts, recorded=retention.ended, say=print
        )
        meter = Meter(study, Budget(), Resources(1))
        run_search(job, study, meter, [recorder])
        assert recorder.close(300)
        memory.append(resident_mb())

    search(10)  # what is loaded once
    began, wall = time.process_time(), time.monotonic()
    search(10 + TRIALS // 2)
    search(10 + TRIALS)
    cost = (time.process_time() - began) / TRIALS
    print(f"{cost * 1000:.1f} ms CPU, {(time.monotonic() - wall) / TRIALS * 1000:.0f} ms a trial; RSS {memory} MB")
    assert len(finished(study)) == 10 + TRIALS
    assert cost <= MAX_CPU_S
    assert memory[2] - memory[1] < 20 + 0.02 * TRIALS
