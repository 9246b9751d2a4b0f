"""Writes the model card in Markdown: what a registered model is, its training, its results and its limits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgan.config import flatten, validated
from medgan.inference.saved_model import ModelManifest
from medgan.metrics.validation_metrics import Patients, overall_means, overall_spread
from medgan.tasks import Image, task_named

NOT_FOR_DIAGNOSIS = "Synthetic images for research only; not for diagnosis."
PATHS = ("extractor.weights", "metrics.lpips_weights")
"""Names the settings whose value can be a private path; the card has the last part only."""
LIMITS = """\
- An output is what the network expects to be there, not what was measured: it can show what is not there, and can
  leave out what is, lesions above all.
- It translates slice by slice; neighboring slices can disagree.
- Measured on the patients below alone. On other scanners, protocols, body regions or diseases nothing is known.
- What lies outside the source's window is clipped, and no output lies outside the target's."""


def card_of(manifest: ModelManifest, *, data: str, test: Patients) -> str:
    """Returns the whole card.

    Args:
        data: one line about the data set of the training, free of identifiers.
        test: test patient -> metric -> mean over the slices, from the same data set.
    """
    task, config = task_named(manifest.task), validated(manifest.config)
    extractor = f"{config.extractor.network}, {_last_part(config.extractor.weights)}"
    facts = {
        "Task": manifest.task,
        "Source": _side(task.source, manifest.source_window),
        "Target": _side(task.target, manifest.target_window or manifest.source_window),
        "Grid": f"{manifest.size} x {manifest.size} px of {manifest.spacing_mm:g} mm; other sizes at this spacing, too",
        "Data set": f"{data}; digest {manifest.data_digest}",
        "Feature extractor": f"{extractor} weights (for the losses alone; the model does not need it)",
        "Weights": f"SHA-256 {manifest.weights_sha256}" if manifest.weights_sha256 else "not saved yet",
    }
    means, spread = overall_means(test), overall_spread(test)
    measured = [(name, f"{value:.4g}", f"{spread[name]:.2g}") for name, value in means.items()]
    settings = {path: _setting(path, value) for path, value in flatten(config).items()}
    return "\n".join(
        [
            f"# {manifest.name}",
            f"**{NOT_FOR_DIAGNOSIS}**",
            _table(("", ""), list(facts.items())),
            f"## Intended use\n\n{manifest.intended_use.capitalize()}: to study methods of image translation.",
            f"## Limits\n\n{LIMITS}",
            f"## On {len(test)} held-out test patients\n\nMean over patients of each one's mean over slices; spread: "
            "standard deviation over patients. Errors in the target's unit; psnr in dB; mse of 0..255.",
            _table(("metric", "mean", "spread"), measured),
            "## Training settings",
            _table(("setting", "value"), list(settings.items())),
        ]
    ).replace("\n#", "\n\n#")


def summary_of(manifest: ModelManifest, test: Patients) -> str:
    """Returns the card in a few lines, for lists of versions."""
    task, means, spread = task_named(manifest.task), overall_means(test), overall_spread(test)
    unit = task.target.unit.lower()
    shown = [name for name in ("ssim", "psnr", f"mae_{unit}", f"mae_{unit}_body") if name in means]
    figures = ", ".join(f"{name} {means[name]:.4g} ± {spread[name]:.2g}" for name in shown)
    return (
        f"{task.source.modality} ({task.source.unit}) to {task.target.modality} ({task.target.unit}), "
        f"{manifest.size} px of {manifest.spacing_mm:g} mm, data set {manifest.data_digest[:12]}. "
        f"{len(test)} test patients: {figures}. {NOT_FOR_DIAGNOSIS}"
    )


def _side(image: Image, window: tuple[float, float] | None) -> str:
    values = f"{window[0]:g} to {window[1]:g} {image.unit}" if window else "0.5 to 99.5 percentile of each volume"
    return f"{image.modality} in {image.unit}; window {values}"


def _setting(path: str, value: Any) -> str:
    return _last_part(str(value)) if path in PATHS else str(value)


def _last_part(weights: str) -> str:
    return Path(weights).name


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n" + "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"
