"""Measures the chosen generator on the test patients, on a worker's own resources, beside the mean image."""

from __future__ import annotations

from pathlib import Path

import ray
import torch
from safetensors.torch import load_file

from medgan.build import build_generator
from medgan.config import Config
from medgan.data.dataset import PreparedDataset, mean_target
from medgan.data.intensity import to_network
from medgan.distributed.resident import Resources
from medgan.engine.evaluate import evaluate, evaluate_image
from medgan.engine.runtime import SingleProcess
from medgan.metrics.table import patient_means

Means = dict[str, dict[str, float]]
LIMIT_S = 3600.0


def measure_on_test(config: Config, weights: Path, dataset: Path, resources: Resources) -> tuple[Means, Means]:
    """Test patient -> metric -> value, of the generator and of the mean image of the training targets.

    Raises:
        ray.exceptions.GetTimeoutError: it took more than an hour.
    """
    gpus = 1 if resources.use_gpu else 0
    task = ray.remote(num_cpus=resources.cpus, num_gpus=gpus)(_measure)
    return ray.get(task.remote(config, str(weights), str(dataset)), timeout=LIMIT_S)


def _measure(config: Config, weights: str, folder: str) -> tuple[Means, Means]:
    dataset = PreparedDataset.open(Path(folder))
    runtime = SingleProcess()
    generator = build_generator(config)
    generator.load_state_dict(load_file(weights))
    test = dataset.slices("test")
    rows = evaluate(generator.to(runtime.device), test, runtime)
    mean = torch.from_numpy(to_network(mean_target(dataset.slices("train")), test.target_window)).float()
    return patient_means(rows), patient_means(evaluate_image(mean, test))
