"""Measures a model on the test patients of a data set, and refuses data sets that it cannot be measured on."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from medgan.config import Config, validated
from medgan.data import remote
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import FILE_NAME, FIRST_MASK_RULE
from medgan.data.manifest import read_manifest as read_data_manifest
from medgan.data.prepare import prepare_dataset as prepare
from medgan.data.prepare.split import has_key, key_id, load_key
from medgan.errors import Diverged, InputError, JobError
from medgan.inference.cost import measure_cost
from medgan.inference.saved_model import ModelManifest, load_translator, read_manifest
from medgan.metrics.validation_metrics import Patients, patient_means
from medgan.paths import Place, is_remote
from medgan.registry.leakage import refuse_other_key, refuse_seen
from medgan.tasks import task_named
from medgan.training.build_networks import deepest_block
from medgan.training.build_training import build_perceptual
from medgan.training.runtime import Runtime, SingleProcess
from medgan.training.validation import Perceptual, evaluate

SAME_SPACING_MM = 1e-3
PHANTOM = "-phantom"
"""Names of models that were trained on phantoms end so, see `medgan.workflows.conclusion.label_of`."""


class Evaluation(BaseModel, frozen=True, extra="forbid", ser_json_inf_nan="constants"):
    """Holds what one model reaches on the test patients of one data set; JSON keeps it whole.

    Attributes:
        name: of the registered model.
        version: of it.
        weights: SHA-256 of its weights.
        task: what it translates.
        data_digest: of the whole data set.
        test_set: digest of what was measured on, see `test_set_of`; whoever else is in the data set.
        patients: test patient -> metric -> mean over the slices.
        slices: test patient -> how many.
        latency_ms: median time of a slice on `device`, batches of 1, after warm-up.
        memory_gb: the most held meanwhile, see `medgan.inference.cost.Cost`.
        device: what latency and memory were measured on.
        pretrained: whether its losses' feature extractor was pretrained, or none was used.
        mask_rule: how the body was told from the rest, see `medgan.data.manifest.Manifest`.
    """

    name: str
    version: str
    weights: str
    task: str
    data_digest: str
    test_set: str
    patients: Patients
    slices: dict[str, int]
    latency_ms: float
    memory_gb: float
    device: str
    pretrained: bool
    mask_rule: str = FIRST_MASK_RULE


def dataset_for_model(
    data: str, manifest: ModelManifest, *, place: Place, progress: Callable[[int, int], None] | None = None
) -> PreparedDataset:
    """Returns the data set in a folder or at a URL, or prepares the images there on the model's grid and windows.

    Images that were prepared before for the same task and grid, such as the model's own, are not prepared twice.

    Raises:
        InputError: no images for the model's task, or an output folder whose key is not the model's.
    """
    source = Path(data).expanduser().absolute()
    if is_remote(data):
        source = remote.fetched(data, place.datasets / "remote")
    if (source / FILE_NAME).exists():
        return PreparedDataset.open(source)
    key = key_id(load_key(place.datasets)) if has_key(place.datasets) else "a new key"
    refuse_other_key(manifest, key, f"those below {place.datasets}")
    request = prepare.PrepareRequest(source, task_named(manifest.task), manifest.size, place.datasets)
    before = prepare.prepared_before(request)
    if before is None or read_data_manifest(before).spacing_mm != manifest.spacing_mm:
        grid = {name: getattr(manifest, name) for name in ("spacing_mm", "source_window", "target_window")}
        grid |= {"axis": manifest.axis} if manifest.axis != "any" else {}
        request = replace(request, settings=grid)
    return PreparedDataset.open(prepare.prepare(request, progress))


def measure_model(
    folder: Path, dataset: PreparedDataset, *, name: str, version: str, ruler: Config | None = None
) -> Evaluation:
    """Measures every slice of every test patient once, on the GPU if there is one.

    Args:
        folder: written by `medgan.inference.saved_model.save_model`.
        ruler: whose LPIPS is measured, so that two models are measured with one; none: the model's own.

    Raises:
        InputError: the model is damaged, has seen a test patient, or is for other images than these.
        JobError: what it gives for these images is no image.
    """
    manifest = read_manifest(folder)
    refuse_unfit(manifest, dataset)
    refuse_seen(manifest, dataset)
    runtime = SingleProcess()
    translator = load_translator(folder, device=str(runtime.device))
    config, slices = validated(manifest.config), dataset.slices("test")
    divisor, size = int(translator.network.divisor), dataset.manifest.size  # type: ignore[arg-type]
    if size % divisor:
        raise InputError("E-EVALUATE-01", name=name, divisor=divisor, size=size)
    try:
        rows = evaluate(translator.network, slices, runtime, perceptual=_perceptual(ruler or config, runtime))
    except Diverged as error:
        raise JobError("E-EVALUATE-02", name=name, version=version, error=error) from None
    cost = measure_cost(translator)
    return Evaluation(
        name=name,
        version=version,
        weights=manifest.weights_sha256,
        task=manifest.task,
        data_digest=dataset.digest,
        test_set=test_set_of(dataset),
        patients=patient_means(rows),
        slices=dict(Counter(slices.patients)),
        latency_ms=cost.latency_ms,
        memory_gb=cost.memory_gb,
        device=cost.device,
        pretrained=not deepest_block(config) or config.extractor.weights != "random",
        mask_rule=dataset.manifest.mask_rule,
    )


def test_set_of(dataset: PreparedDataset) -> str:
    """Returns a SHA-256 over the test patients' hashes and arrays, independent of the other patients."""
    kept = {"hash", "source", "target", "source_window", "target_window", "sha256"}
    tested = [one for one in dataset.manifest.patients if one.role == "test"]
    content = [one.model_dump(mode="json", include=kept) for one in sorted(tested, key=lambda one: one.hash)]
    return hashlib.sha256(json.dumps([dataset.task.name, content], sort_keys=True).encode()).hexdigest()


def refuse_unfit(manifest: ModelManifest, dataset: PreparedDataset) -> None:
    """Raises InputError if task, spacing or window differ, or only one of the two is of phantoms; any size will do."""
    task = dataset.task
    named = f"model {manifest.name}, data set {dataset.digest[:12]}"
    kinds = ("phantoms" if one else "patients" for one in (manifest.name.endswith(PHANTOM), dataset.manifest.phantom))
    wanted, there = kinds
    if there != wanted:
        raise InputError("E-EVALUATE-03", named=named, wanted=wanted, there=there)
    if manifest.task != task.name:
        raise InputError("E-EVALUATE-04", named=named, task=manifest.task, task_name=task.name)
    if abs(manifest.spacing_mm - dataset.manifest.spacing_mm) > SAME_SPACING_MM:
        raise InputError(
            "E-EVALUATE-05", named=named, spacing_mm=manifest.spacing_mm, spacing_mm_2=dataset.manifest.spacing_mm
        )
    if "any" not in (axes := (manifest.axis, dataset.manifest.axis)) and axes[0] != axes[1]:
        raise InputError("E-EVALUATE-11", named=named, axis=axes[0], axis_2=axes[1])
    for side, window in (("source", manifest.source_window), ("target", manifest.target_window)):
        own = getattr(task, side).window
        if own != window:
            raise InputError("E-EVALUATE-06", named=named, side=side, window=window, own=own)


def _perceptual(config: Config, runtime: Runtime) -> Perceptual | None:
    """Returns LPIPS as the model's training measured it; None where its weights are no longer available."""
    try:
        return build_perceptual(config, runtime.device)
    except InputError:
        return None
