"""Measures a trained generator on the test patients, and the floor that it must beat."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from medgan.config import Config
from medgan.data.dataset import PreparedDataset, mean_target
from medgan.metrics.validation_metrics import Patients, patient_means
from medgan.training.build_networks import build_generator
from medgan.training.build_training import build_perceptual
from medgan.training.runtime import Runtime
from medgan.training.validation import evaluate, evaluate_image


def measure_on_test(
    config: Config, weights: Path, dataset: PreparedDataset, runtime: Runtime
) -> tuple[Patients, Patients]:
    """Returns test patient -> metric -> value for the generator and for the task's floor (`Task.floor`)."""
    generator = trained_generator(config, weights, runtime)
    return generator_on_test(config, generator, dataset, runtime), floor_on_test(config, dataset, runtime)


def trained_generator(config: Config, weights: Path, runtime: Runtime) -> nn.Module:
    """Loads the generator of a training onto the runtime's device."""
    generator = build_generator(config)
    generator.load_state_dict(load_file(weights))
    return generator.to(runtime.device)


def generator_on_test(config: Config, generator: nn.Module, dataset: PreparedDataset, runtime: Runtime) -> Patients:
    """Returns test patient -> metric -> value for a generator."""
    perceptual = build_perceptual(config, runtime.device)
    return patient_means(evaluate(generator, dataset.slices("test"), runtime, perceptual=perceptual))


def floor_on_test(config: Config, dataset: PreparedDataset, runtime: Runtime) -> Patients:
    """Returns test patient -> metric -> value for the task's floor (`Task.floor`), which needs no network."""
    test = dataset.slices("test")
    if dataset.task.floor == "mean image":
        on_cpu = build_perceptual(config, torch.device("cpu"))
        return patient_means(evaluate_image(mean_target(dataset.slices("train")), test, perceptual=on_cpu))
    perceptual = build_perceptual(config, runtime.device)
    return patient_means(evaluate(nn.Identity(), test, runtime, perceptual=perceptual))
