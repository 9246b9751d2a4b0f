"""Measures the chosen generator on the test patients, on a worker's own resources."""

from __future__ import annotations

from pathlib import Path

import ray

from medgan.build.testing import measure_on_test
from medgan.config import Config
from medgan.data.dataset import PreparedDataset
from medgan.distributed.resident import Resources
from medgan.engine.runtime import SingleProcess
from medgan.metrics.table import Patients

LIMIT_S = 3600.0


def measure_on_worker(config: Config, weights: Path, dataset: Path, resources: Resources) -> tuple[Patients, Patients]:
    """`medgan.build.testing.measure_on_test` where the cluster has room for it.

    Raises:
        ray.exceptions.GetTimeoutError: it took more than an hour.
    """
    gpus = 1 if resources.use_gpu else 0
    task = ray.remote(num_cpus=resources.cpus, num_gpus=gpus)(_measure)
    return ray.get(task.remote(config, str(weights), str(dataset)), timeout=LIMIT_S)


def _measure(config: Config, weights: str, folder: str) -> tuple[Patients, Patients]:
    return measure_on_test(config, Path(weights), PreparedDataset.open(Path(folder)), SingleProcess())
