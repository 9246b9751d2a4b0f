"""Defines what the commands share: options, and how they end when they are stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from medgan.tasks import TASKS

Output = Annotated[Path | None, typer.Option(help="folder for everything (default: $MEDGAN_HOME, else ~/medgan)")]
TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow store (default: $MLFLOW_TRACKING_URI, else mlflow.db in --output)")
]
Data = Annotated[
    str | None,
    typer.Option(
        help="folder of DICOM or NIfTI, any layout, or a prepared data set's folder or URL (default: phantom patients)"
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(help="search space, by name or file (default: the task's, with phantoms quick, or quick_same)"),
]
Study = Annotated[str | None, typer.Option(help="name of the study (default: task, data and space, shortened)")]
Trials = Annotated[int | None, typer.Option(help="finished trials the study shall have in all (default: the space's)")]
Workers = Annotated[int | None, typer.Option(help="DDP processes a trial (default: 1 on GPU, 2 on CPU)")]
Concurrent = Annotated[int | None, typer.Option(help="trials at once (default: what fits)")]
MaxGpuHours = Annotated[
    float | None,
    typer.Option(help="GPU-hours the study may take in all; without GPUs, core-hours (default: the space's)"),
]
MaxHours = Annotated[
    float | None, typer.Option(help="hours of searching the study may take in all (default: the space's)")
]
StudyUri = Annotated[
    str | None, typer.Option(help="Optuna database, such as postgresql://HOST/NAME (default: study.db in --output)")
]
Model = Annotated[str, typer.Option(help="models:/NAME@ALIAS or models:/NAME/VERSION")]
Preset = Annotated[str, typer.Option(help="published method, such as medgan, pix2pix, unet_l1")]
Quick = Annotated[bool, typer.Option("--quick", help="the method made small: 64 px, narrow, random features, 6 epochs")]
TaskName = Annotated[str, typer.Option(help=f"what is translated into what: {', '.join(TASKS)}")]
Settings = Annotated[list[str], typer.Option("--set", help="fix a setting: path=value, such as train.epochs=3")]


@contextmanager
def held_back() -> Iterator[None]:
    """Makes Ctrl-C wait: an import that it interrupts may raise another error, or lose it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ends a job that is stopped by Ctrl-C with a sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept; the same command goes on from there.")
        raise SystemExit(130) from None
