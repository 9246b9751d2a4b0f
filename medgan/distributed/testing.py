"""Measures trained generators on the test patients, with the resources of the cluster's workers."""

import copy
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from medgan.config import Config
from medgan.data.atomic_write import write_atomically
from medgan.data.dataset import PreparedDataset
from medgan.distributed.resources import Resources
from medgan.errors import Diverged, JobError
from medgan.metrics.validation_metrics import Patients, patient_means
from medgan.training.build_training import build_perceptual
from medgan.training.held_out import floor_on_test, generator_on_test, trained_generator
from medgan.training.mixed_precision import in_precision
from medgan.training.patch_matching import measure_knn_on_test
from medgan.training.runtime import SingleProcess
from medgan.training.validation import evaluate, fixed_pictures

LIMIT_S = 3600.0
FLOOR, MATCHING = "floor", "knn_patches"
"""These are measured beside trained generators: the task's floor, and patch matching."""


@dataclass(frozen=True)
class KeptGenerator:
    """Holds what a kept generator reaches, each as patient -> metric -> value.

    Attributes:
        validation: the validation patients, measured as in the generator's training; empty if the output is no image.
        test: the test patients.
        floor: the test patients, without a network (`Task.floor`).
    """

    validation: Patients
    test: Patients
    floor: Patients


def measure_on_worker(config: Config, weights: Path, dataset: Path, resources: Resources) -> KeptGenerator:
    """Measures a kept generator on validation and test patients where the cluster has room.

    Raises:
        Diverged: the output for the test patients is no image, although that for the validation patients is one.
        ray.exceptions.GetTimeoutError: the measurement took more than an hour.
    """
    task = _on(resources, _measure)
    return ray.get(task.remote(config, str(weights), str(dataset)), timeout=LIMIT_S)


def measure_each(
    wanted: Mapping[str, tuple[Config, Path | None]],
    folder: Path,
    dataset: Path,
    resources: Resources,
    report: Callable[[int], None],
) -> None:
    """Measures each model on the test patients, as many at once as fit, and writes `<name>.json` and `<name>.npz`.

    The JSON file holds `patients`, or `failure` where the generator diverged; the other file pictures of the fixed test
    slices, see `medgan.training.validation.fixed_pictures`. A name whose JSON file exists is not measured again.

    Args:
        wanted: name -> configuration and weights; without weights the name is `FLOOR` or `MATCHING`.
        folder: output folder that every node sees.
        dataset: the prepared data set's state.
        report: gets the number of models that are measured.

    Raises:
        JobError: a measurement failed, or none ended within an hour.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = _on(resources, _measure_into)
    waiting = [
        task.remote(name, config, weights and str(weights), str(folder), str(dataset))
        for name, (config, weights) in wanted.items()
        if not (folder / f"{name}.json").exists()
    ]
    last = time.monotonic()
    while waiting:
        report(len(wanted) - len(waiting))
        done, waiting = ray.wait(waiting, timeout=LIMIT_S)
        if not done:
            raise JobError("E-TEST-01", monotonic=time.monotonic() - last)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise JobError("E-TEST-02", name=type(cause).__name__, cause=cause) from error
        last = time.monotonic()


def _on(resources: Resources, function: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=resources.cpus, num_gpus=1 if resources.use_gpu else 0)(function)


def _measure(config: Config, weights: str, folder: str) -> KeptGenerator:
    dataset, runtime = PreparedDataset.open(Path(folder)), SingleProcess()
    generator = trained_generator(config, Path(weights), runtime)
    as_trained = in_precision(copy.deepcopy(generator), config.train.precision, runtime.device)
    perceptual = build_perceptual(config, runtime.device)
    try:
        rows = evaluate(as_trained, dataset.slices("validation"), runtime, perceptual=perceptual)
    except Diverged:
        return KeptGenerator({}, {}, {})
    test = generator_on_test(config, generator, dataset, runtime)
    return KeptGenerator(patient_means(rows), test, floor_on_test(config, dataset, runtime))


def _measure_into(name: str, config: Config, weights: str | None, folder: str, state: str) -> None:
    dataset, runtime = PreparedDataset.open(Path(state)), SingleProcess()
    found: dict[str, Any]
    try:
        if weights is not None:
            generator = trained_generator(config, Path(weights), runtime)
            pictures: dict[str, Any] = fixed_pictures(generator, dataset.slices("test"), runtime.device)
            found = {"patients": generator_on_test(config, generator, dataset, runtime)}
            packed = io.BytesIO()
            np.savez(packed, **pictures)
            write_atomically(Path(folder) / f"{name}.npz", packed.getvalue())
        elif name == FLOOR:
            found = {"patients": floor_on_test(config, dataset, runtime)}
        else:
            on_cpu = build_perceptual(config, torch.device("cpu"))
            found = {"patients": measure_knn_on_test(dataset, perceptual=on_cpu)}
    except Diverged as error:
        found = {"failure": f"diverged on the test patients: {error}"}
    write_atomically(Path(folder) / f"{name}.json", json.dumps(found).encode())
