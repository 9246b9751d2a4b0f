"""Measures the cost of the paper's plain metrics and of the whole validation pass, as shares of an epoch."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from medgan.benchmark.bench_data import quick_config
from medgan.benchmark.measurements import Measurement, spread_of
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.timing import described, seconds
from medgan.config import Config
from medgan.metrics.pixel_errors import mae, mse, psnr
from medgan.metrics.ssim import ssim
from medgan.training.build_training import build_training
from medgan.training.loop import Training, train_epoch
from medgan.training.runtime import SingleProcess

BATCH, GREY = 16, 255.0


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures epochs of MedGAN at the quick setting."""
    return of(quick_config(), device, epochs=3 if quick else 10)


def of(config: Config, device: torch.device, *, epochs: int) -> list[Measurement]:
    """Measures the shares in `epochs` epochs after the first."""
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as folder:
        dataset = prepared_phantoms(Path(folder), size=config.data.size)
        training = build_training(config, dataset, SingleProcess(device), folder=Path(folder) / "trial")
        train_epoch(training)
        trained = [train_epoch(training) for _ in range(epochs)]
        plain = [seconds(lambda: plain_metrics(training), device) for _ in range(epochs)]
    whole = [one["time/epoch_s"] for one in trained]
    passes = [one["time/epoch_s"] - one["time/train_s"] for one in trained]
    row = partial(
        Measurement,
        part="validation",
        settings=f"{config.data.size} px, {config.generator.num_blocks} blocks, {len(training.train)} training and "
        f"{len(training.validation)} validation slices",
        device=described(device),
        unit="%",
    )
    return [
        row(
            figure="SSIM, PSNR, MSE and MAE, of an epoch",
            value=spread_of([100 * mine / epoch for mine, epoch in zip(plain, whole, strict=True)]),
            wanted="<= 10 %" if device.type == "cpu" else "<= 5 %",
            note="each on whole slices and in the body",
        ),
        row(
            figure="all metrics and the pass itself, of an epoch",
            value=spread_of([100 * mine / epoch for mine, epoch in zip(passes, whole, strict=True)]),
        ),
    ]


def plain_metrics(training: Training) -> None:
    """Computes SSIM, PSNR, MSE and MAE of every validation slice against 0.9 times itself."""
    slices, device = training.validation, training.runtime.device
    for start in range(0, len(slices), BATCH):
        indices = range(start, min(start + BATCH, len(slices)))
        target = torch.stack([slices[index][1] for index in indices]).to(device)
        mask = torch.stack([slices.mask(index) for index in indices]).to(device)
        _measure(0.9 * target, target, mask)


def _measure(output: Tensor, target: Tensor, mask: Tensor) -> None:
    output, target = ((image + 1) * GREY / 2 for image in (output, target))
    for region in (None, mask):
        for value in (
            ssim(output, target, data_range=GREY, mask=region),
            psnr(output, target, data_range=GREY, mask=region),
            mse(output, target, mask=region),
            mae(output, target, mask=region),
        ):
            value.tolist()
