"""One registered model measured, shown and kept, top to bottom; `medgan evaluate` calls it."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from medgan.cli.summary import UNITS
from medgan.config import validated
from medgan.data.dataset import PreparedDataset, Slices
from medgan.inference.saved_model import load_translator, read_manifest
from medgan.metrics.validation_metrics import overall_means, overall_spread
from medgan.paths import Place, redacted
from medgan.registry import test_set_ledger as ledger
from medgan.registry.evaluation import Evaluation, dataset_for_model, measure_model
from medgan.registry.evidence import attach, run_of
from medgan.registry.versions import fetched, reached
from medgan.tracking.slice_pictures import draw_slices
from medgan.training.runtime import SingleProcess
from medgan.training.validation import fixed_pictures
from medgan.workflows.acceptance import nothing_left_behind

RANKED_BY = "ssim"
SHOWN = ("ssim", "psnr", "vif", "lpips", "mae_hu", "mae_hu_body", "mae_hu_bone", "mae_suv", "mae_suv_body")
"""What is shown of the metrics, where they are measured; the files hold all."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What the command line asks for.

    Attributes:
        model: `models:/<name>@<alias>` or `models:/<name>/<version>`.
        data: prepared data set, or images; whose test patients.
        place: where the model is registered, and where images are prepared.
    """

    model: str
    data: str
    place: Place


def evaluate_model(request: EvaluateRequest, console: Console) -> Evaluation:
    """Measures a registered model, shows it patient by patient, and keeps figures and pictures with the version.

    Raises:
        InputError: no such model or images, or they do not go together; see `measure_model`.
        JobError: the store did not take the result, whose files are in the output folder nonetheless.
    """
    place, uri = request.place, request.place.tracking_uri
    with reached(uri), nothing_left_behind(place.output), fetched(request.model, uri=uri) as (folder, name, version):
        run_of(name, version, uri=uri)  # refused before anything is measured
        manifest = read_manifest(folder)
        dataset = dataset_for_model(request.data, manifest, place=place, console=console)
        console.print(f"measuring {name} version {version} on {len(dataset.slices('test'))} slices ...")
        evaluation = measure_model(folder, dataset, name=name, version=version)
        ledger.enter(name, test_set=evaluation.test_set, weights=evaluation.weights, version=version, uri=uri)
        short = dataset.digest[:12]
        out = place.output / "evaluations" / f"{name}-{version}-{short}"
        write_files(evaluation, folder, dataset, out)
    if "lpips" not in overall_means(evaluation.patients) and validated(manifest.config).metrics.lpips != "none":
        console.print("lpips is left out: its weights are not where they were when the model was trained")
    _show(console, evaluation)
    console.print(f"\nFiles: {out}", soft_wrap=True)
    means = _shown(overall_means(evaluation.patients))
    tags = {f"medgan.registry.evaluation.{short}.{metric}": f"{value:.5g}" for metric, value in means.items()}
    tags[f"medgan.registry.evaluation.{short}.patients"] = str(len(evaluation.patients))
    attach(name, version, files=out, folder=f"evaluation/{short}", tags=tags, uri=uri)
    console.print(
        f"MLflow: evaluation/{short}/ on the run of {name} version {version} in {redacted(uri)}", soft_wrap=True
    )
    console.print("Synthetic images, for research only; not for diagnosis.")
    return evaluation


def write_files(evaluation: Evaluation, folder: Path, dataset: PreparedDataset, out: Path) -> None:
    """`evaluation.json`, `patients.csv` with every metric, and pictures of the best, the median and the worst patient.

    Args:
        evaluation: of the model on the data set.
        folder: the model.
        dataset: whose test patients.
        out: made if need be.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    names = list(overall_means(evaluation.patients))
    with (out / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["patient", "slices", *names])
        table.writeheader()
        for patient, values in evaluation.patients.items():
            table.writerow({"patient": patient, "slices": evaluation.slices[patient], **values})
    ranked = _ranked(evaluation)
    _draw(ranked, folder, dataset, out)


def _ranked(evaluation: Evaluation) -> list[str]:
    """The patients, the best first."""
    return sorted(evaluation.patients, key=lambda patient: -evaluation.patients[patient][RANKED_BY])


def _draw(ranked: list[str], folder: Path, dataset: PreparedDataset, out: Path) -> None:
    runtime, task = SingleProcess(), dataset.task
    network = load_translator(folder, device=str(runtime.device)).network
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    for name, patient in chosen.items():
        own = [one for one in dataset.manifest.patients if one.hash == patient]
        arrays = fixed_pictures(network, Slices(dataset.folder, own, task), runtime.device)
        title = f"{name} of {len(ranked)} test patients by {RANKED_BY}; outputs are synthetic, for research only"
        with tempfile.TemporaryDirectory() as scratch:
            np.savez(Path(scratch) / "slices.npz", allow_pickle=False, **arrays)
            draw_slices(
                Path(scratch) / "slices.npz", out / f"{name}.png", title=title, source=task.source, target=task.target
            )


def _shown(values: dict[str, float]) -> dict[str, float]:
    return {name: values[name] for name in SHOWN if name in values}


def _show(console: Console, evaluation: Evaluation) -> None:
    patients = evaluation.patients
    means, spread = _shown(overall_means(patients)), overall_spread(patients)
    table = Table("test patient", "slices", *(name + UNITS.get(name, "") for name in means), box=None, pad_edge=False)
    for patient in _ranked(evaluation):
        cells = (f"{patients[patient][name]:.4g}" if name in patients[patient] else "-" for name in means)
        table.add_row(patient, str(evaluation.slices[patient]), *cells)
    table.add_section()
    table.add_row("mean", "", *(f"{value:.4g}" for value in means.values()))
    table.add_row("spread", "", *(f"{spread[name]:.2g}" for name in means))
    console.print()
    console.print(table)
    cost = f"{evaluation.latency_ms:.3g} ms a slice, {evaluation.memory_gb:.2g} GB, in batches of 1"
    console.print(f"\n{cost}, on {evaluation.device}")
