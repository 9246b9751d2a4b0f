"""Measures a registered model on the test patients of a data set and keeps the result with its version."""

import csv
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgan.config import validated
from medgan.data.atomic_write import appearing, writing
from medgan.data.dataset import PreparedDataset, Slices
from medgan.data.prepare.convert_patient import CROPPED
from medgan.inference.saved_model import load_translator, read_manifest
from medgan.locks import held
from medgan.metrics.validation_metrics import overall_means
from medgan.paths import Place
from medgan.registry import test_set_ledger as ledger
from medgan.registry.evaluation import Evaluation, dataset_for_model, measure_model
from medgan.registry.evidence import attach, run_of
from medgan.registry.versions import fetched, reached
from medgan.tracking.slice_pictures import draw_slices
from medgan.training.runtime import SingleProcess
from medgan.training.validation import fixed_pictures
from medgan.workflows.events import Note, Notify, advancing, ignore
from medgan.workflows.requirements import nothing_left_behind

WRITING_S = 60.0  # the files of one evaluation
RANKED_BY = "ssim"
SHOWN = ("ssim", "psnr", "vif", "lpips", "mae_hu", "mae_hu_body", "mae_hu_bone", "mae_suv", "mae_suv_body")
"""These metrics are displayed where they are measured; the files hold all."""


@dataclass(frozen=True)
class EvaluatedModel:
    """Describes a model that was measured, and where the result is kept.

    Attributes:
        files: folder with `evaluation.json`, `patients.csv` and pictures.
        artifacts: the same files among the artifacts of the version's run.
    """

    evaluation: Evaluation
    files: Path
    artifacts: str


def evaluate_model(model: str, data: str, place: Place, notify: Notify = ignore) -> EvaluatedModel:
    """Measures a registered model, and keeps figures and pictures with its version.

    Args:
        model: `models:/<name>@<alias>` or `models:/<name>/<version>`.
        data: prepared data set, or images; the test patients are measured.
        notify: takes the events, an `Evaluation` among them.

    Raises:
        InputError: no such model or images, or they do not go together; see `measure_model`.
        JobError: the store did not take the result, whose files are in the output folder nonetheless.
    """
    uri = place.tracking_uri
    with reached(uri), nothing_left_behind(place.output), fetched(model, uri=uri) as (folder, name, version):
        run_of(name, version, uri=uri)  # refused before anything is measured
        manifest = read_manifest(folder)
        dataset = dataset_for_model(data, manifest, place=place, progress=advancing(notify, "patients prepared"))
        notify(Note(f"measuring {name} version {version} on {len(dataset.slices('test'))} slices ..."))
        for note in _of_cropped(dataset):
            notify(Note(note))
        evaluation = measure_model(folder, dataset, name=name, version=version)
        ledger.enter(name, test_set=evaluation.test_set, weights=evaluation.weights, version=version, uri=uri)
        short = dataset.digest[:12]
        out = place.output / "evaluations" / f"{name}-{version}-{short}"
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = out.with_name(f".{out.name}.lock")
        with writing(out), held(lock, f"evaluation {out}", limit_s=WRITING_S), appearing(out) as partial:
            write_files(evaluation, folder, dataset, partial)
            shutil.rmtree(out, ignore_errors=True)  # of the same measurement before
    means = overall_means(evaluation.patients)
    if "lpips" not in means and validated(manifest.config).metrics.lpips != "none":
        notify(Note("lpips is left out: its weights are not where they were when the model was trained"))
    notify(evaluation)
    notify(Note(f"\nFiles: {out}"))
    tags = {f"medgan.evaluation.{short}.{metric}": f"{value:.5g}" for metric, value in selected(means).items()}
    tags[f"medgan.evaluation.{short}.patients"] = str(len(evaluation.patients))
    attach(name, version, files=out, folder=f"evaluation/{short}", tags=tags, uri=uri)
    return EvaluatedModel(evaluation, out, f"evaluation/{short}/")


def _of_cropped(dataset: PreparedDataset) -> list[str]:
    """Returns a line for each test patient whose image is larger than the grid, so that its rim is not measured."""
    tested = (one for one in dataset.manifest.patients if one.role == "test")
    return [f"patient {one.hash}: {note}" for one in tested for note in one.notes if note.startswith(CROPPED)]


def write_files(evaluation: Evaluation, folder: Path, dataset: PreparedDataset, out: Path) -> None:
    """Writes `evaluation.json`, `patients.csv` with every metric, and pictures of the best, median and worst patient.

    Args:
        out: an empty folder.
    """
    (out / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    names = list(overall_means(evaluation.patients))
    with (out / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["patient", "slices", *names])
        table.writeheader()
        for patient, values in evaluation.patients.items():
            table.writerow({"patient": patient, "slices": evaluation.slices[patient], **values})
    _draw(ranked(evaluation), folder, dataset, out)


def ranked(evaluation: Evaluation) -> list[str]:
    """Returns the patients, the best first."""
    return sorted(evaluation.patients, key=lambda patient: -evaluation.patients[patient][RANKED_BY])


def _draw(patients: list[str], folder: Path, dataset: PreparedDataset, out: Path) -> None:
    runtime, task = SingleProcess(), dataset.task
    network = load_translator(folder, device=str(runtime.device)).network
    chosen = {"best": patients[0], "median": patients[len(patients) // 2], "worst": patients[-1]}
    for name, patient in chosen.items():
        own = [one for one in dataset.manifest.patients if one.hash == patient]
        arrays = fixed_pictures(network, Slices(dataset.folder, own, task), runtime.device)
        title = f"{name} of {len(patients)} test patients by {RANKED_BY}; outputs are synthetic, for research only"
        with tempfile.TemporaryDirectory() as scratch:
            np.savez(Path(scratch) / "slices.npz", allow_pickle=False, **arrays)
            draw_slices(
                Path(scratch) / "slices.npz", out / f"{name}.png", title=title, source=task.source, target=task.target
            )


def selected(values: dict[str, float]) -> dict[str, float]:
    """Returns those of the metrics that a person is shown first."""
    return {name: values[name] for name in SHOWN if name in values}
