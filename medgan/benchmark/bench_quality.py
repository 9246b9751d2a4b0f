"""Checks that speed does not cost quality: compares training with every option to the plain float32 reference."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from medgan.benchmark.measurements import Measurement, spread_of
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.plain_method import QUICK, UPDATES, Setting, build_objective, build_state, random_batches
from medgan.benchmark.reference import Reference
from medgan.benchmark.timing import described, is_fast_in_bfloat16
from medgan.data.augmentation import AUGMENTATIONS
from medgan.data.dataset import Batches, PreparedDataset
from medgan.metrics.validation_metrics import overall_means, patient_means
from medgan.training.autotune import Speed, Step, fastest
from medgan.training.feed import Feed, stacked
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step
from medgan.training.validation import evaluate

SEEDS = (0, 10, 20)
STEPS, QUICK_STEPS = 300, 30
FAST, PLAIN = "every option on", "plain eager, float32"


def measure(*, quick: bool, device: torch.device, data: Path | None = None) -> list[Measurement]:
    """Measures validation SSIM after 300 steps, 30 when quick, on a prepared data set, by default of phantoms."""
    with opened(data) as dataset:
        setting = replace(QUICK, size=size_of(dataset))
        return compare(dataset, setting, device, steps=QUICK_STEPS if quick else STEPS)


def compare(dataset: PreparedDataset, setting: Setting, device: torch.device, *, steps: int) -> list[Measurement]:
    """Compares both kinds of training on the same batches, with three seeds each."""
    precision = "bfloat16" if is_fast_in_bfloat16(device) else "float32"
    speed = all_on(setting, device, precision)
    seeds = [replace(setting, seed=seed) for seed in SEEDS]
    fast = [score(dataset, *fast_training(one, dataset, device, precision, speed), steps, device) for one in seeds]
    plain = [score(dataset, *plain_training(one, dataset, device), steps, device) for one in seeds]
    return rows_of(
        {f"{FAST} ({precision}, {speed.text()}, data on the device)": fast, PLAIN: plain},
        settings=f"{setting.text()}, {steps} steps, data set {dataset.digest[:12]}",
        device=described(device),
    )


def rows_of(scores: dict[str, list[float]], *, settings: str, device: str) -> list[Measurement]:
    """Returns the scores of the seeds and the difference of the means; `scores` holds the fast, then the plain ones."""
    row = partial(Measurement, part="quality", settings=settings, device=device, unit="val/ssim")
    fast, plain = scores.values()
    own = max(plain) - min(plain)
    return [
        *(
            row(figure=name, value=spread_of(values), note=f"seeds: {', '.join(f'{value:.4f}' for value in values)}")
            for name, values in scores.items()
        ),
        row(
            figure="mean of the fast less mean of the plain",
            value=spread_of([fmean(fast) - fmean(plain)]),
            wanted=f"within {own:.4f} of 0",
            note="wanted is the plain one's own spread over the seeds, largest less smallest",
        ),
    ]


def score(dataset: PreparedDataset, network: nn.Module, step: Step, steps: int, device: torch.device) -> float:
    """Returns the mean SSIM of the validation patients after `steps` steps."""
    torch.manual_seed(0)
    for _ in range(steps):
        step()
    rows = evaluate(network, dataset.slices("validation"), SingleProcess(device))
    return overall_means(patient_means(rows))["ssim"]


def fast_training(
    setting: Setting, dataset: PreparedDataset, device: torch.device, precision: str, speed: Speed
) -> tuple[nn.Module, Step]:
    """Builds the engine's generator with the given options and all slices in the device's memory, and its step."""
    state, objective = build_state(setting, device, precision=precision, speed=speed), build_objective(setting)
    feed = feed_of(setting, dataset, device, stored=True)
    return state.generator, lambda: train_step(state, objective, feed, UPDATES)


def plain_training(setting: Setting, dataset: PreparedDataset, device: torch.device) -> tuple[nn.Module, Step]:
    """Builds the reference's generator, and its step on the same batches."""
    reference, feed = Reference(setting, device), feed_of(setting, dataset, device, stored=False)
    return reference.generator, lambda: reference.step(feed)


def feed_of(setting: Setting, dataset: PreparedDataset, device: torch.device, *, stored: bool) -> Feed:
    """Returns the batches of the training patients, in an order that follows from the seed."""
    slices = dataset.slices("train")
    sampler = Batches(len(slices), setting.batch_size, seed=setting.seed)
    kept = stacked(slices, device) if stored else None
    return Feed(slices, sampler, device=device, augment=AUGMENTATIONS["none"], stored=kept)


def all_on(setting: Setting, device: torch.device, precision: str) -> Speed:
    """Returns channels_last on a CPU, faster or not; on a GPU the fastest available speed, compiled or not."""
    if device.type != "cuda":
        return Speed("channels_last")
    objective, batches = build_objective(setting), random_batches(setting, device)

    def step_of(speed: Speed) -> Step:
        state = build_state(setting, device, precision=precision, speed=speed)
        return lambda: train_step(state, objective, batches, UPDATES)

    return fastest(step_of, device)


def size_of(dataset: PreparedDataset) -> int:
    """Returns the number of rows, which is the number of columns, of a slice."""
    return int(dataset.slices("train")[0][0].shape[-1])


@contextmanager
def opened(folder: Path | None) -> Iterator[PreparedDataset]:
    """Yields the prepared data set, or a temporary one of phantoms.

    Raises:
        InputError: the folder holds no data set.
    """
    if folder is not None:
        yield PreparedDataset.open(folder)
        return
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as scratch:
        yield prepared_phantoms(Path(scratch), size=QUICK.size)
