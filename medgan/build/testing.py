"""A trained generator on the test patients, beside the mean image of the training targets."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from medgan.build.networks import build_generator
from medgan.build.training import build_perceptual
from medgan.config import Config
from medgan.data.dataset import PreparedDataset, mean_target
from medgan.data.intensity import to_network
from medgan.engine.evaluate import evaluate, evaluate_image
from medgan.engine.runtime import Runtime
from medgan.metrics.table import Patients, patient_means


def measure_on_test(
    config: Config, weights: Path, dataset: PreparedDataset, runtime: Runtime
) -> tuple[Patients, Patients]:
    """Test patient -> metric -> value, of the generator, and of the mean image taken for every output."""
    generator = build_generator(config)
    generator.load_state_dict(load_file(weights))
    test = dataset.slices("test")
    perceptual = build_perceptual(config, runtime.device)
    rows = evaluate(generator.to(runtime.device), test, runtime, perceptual=perceptual)
    mean = torch.from_numpy(to_network(mean_target(dataset.slices("train")), test.target_window)).float()
    on_cpu = build_perceptual(config, torch.device("cpu"))
    return patient_means(rows), patient_means(evaluate_image(mean, test, perceptual=on_cpu))
