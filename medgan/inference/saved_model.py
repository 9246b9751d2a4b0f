"""Saves and loads a trained generator: a folder with `model.json`, its manifest, and `generator.safetensors`."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import safetensors.torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor

from medgan.config import validated
from medgan.errors import InputError
from medgan.inference.translator import NetworkInput, Translator
from medgan.tasks import task_named
from medgan.training.build_networks import build_generator

MANIFEST = "model.json"
WEIGHTS = "generator.safetensors"
CARD = "card.md"
"""Names the model card, for people only, see `medgan.inference.model_card`."""


class ModelManifest(BaseModel, frozen=True, extra="forbid"):
    """Describes a model, as a person or a program needs it to use the weights beside it."""

    schema_version: Literal[1] = 1
    name: str = Field(description="as registered, such as medgan-pet2ct")
    version: str = Field(default="", description="as registered; empty before that")
    task: str
    config: dict[str, Any] = Field(description="the training's configuration, see medgan.config")
    spacing_mm: PositiveFloat = Field(description="in-plane spacing of the training's grid")
    size: PositiveInt = Field(description="rows and columns of the training's grid")
    source_window: tuple[float, float] | None = Field(
        description="(low, high) in the source's unit, mapped to [-1, 1]; null: the percentiles of each volume"
    )
    target_window: tuple[float, float] | None = Field(description="the same of the target; null: the source's")
    axis: Literal["axial", "coronal", "sagittal", "any"] = Field(
        default="any", description="plane of the slices it was trained on; any: not known"
    )
    data_digest: str = Field(description="digest of the data set it was trained on")
    training_patients: tuple[str, ...] = Field(default=(), description="hashes of those it was trained on")
    patients_without_issuer: tuple[str, ...] = Field(
        default=(), description="hashes of these patients' IDs alone, where an ID has an issuer"
    )
    validation_patients: tuple[str, ...] = Field(default=(), description="hashes of those its best epoch was chosen on")
    features: dict[str, Any] = Field(
        default={}, description="which features its losses compared: network, digest of the weights, scale; empty: none"
    )
    key_id: str = Field(default="", description="of the key they were hashed with; empty: the patients are not known")
    weights_sha256: str = Field(default="", description="of generator.safetensors; set when saved")
    intended_use: Literal["research only"] = "research only"

    @model_validator(mode="after")
    def windows_open_upwards(self) -> Self:
        """Refuses a window whose low end is not below its high end."""
        for name in ("source_window", "target_window"):
            low, high = getattr(self, name) or (0.0, 1.0)
            if not low < high:
                raise InputError("E-MODEL-03", name=name, low=low, high=high)
        return self


def save_model(folder: Path, *, generator_state: Mapping[str, Tensor], manifest: ModelManifest) -> ModelManifest:
    """Writes weights and manifest; the manifest comes last, so that a folder with one is complete.

    Args:
        folder: folder to write, made if it does not exist.
        manifest: manifest to write; it is returned with the `weights_sha256` of these weights.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in generator_state.items()}
    weights = safetensors.torch.save(tensors)
    written = manifest.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / MANIFEST).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return written


def read_manifest(folder: Path) -> ModelManifest:
    """Reads `model.json`.

    Raises:
        InputError: the file is missing, or one of its fields is wrong; the message names the field.
    """
    content = _content(folder, MANIFEST)
    try:
        return ModelManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            "E-MODEL-04", folder=folder / MANIFEST, field=field, msg=first["msg"], given=first["input"]
        ) from None


def load_translator(folder: Path, device: str = "cpu") -> Translator:
    """Loads the model of a folder, ready to translate.

    Raises:
        InputError: a file is missing or damaged, or the weights do not fit the network.
    """
    manifest = read_manifest(folder)
    weights = _content(folder, WEIGHTS)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != manifest.weights_sha256:
        raise InputError("E-MODEL-05", folder=folder / WEIGHTS, weights_sha256=manifest.weights_sha256, digest=digest)
    network, wanted = build_generator(validated(manifest.config)), network_input(manifest)
    try:
        network.load_state_dict(safetensors.torch.load(weights))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError("E-MODEL-06", folder=folder / WEIGHTS, reason=reason) from None
    return Translator(network.to(device), wanted.task, wanted.spacing_mm, wanted.size, wanted.axis)


def network_input(manifest: ModelManifest) -> NetworkInput:
    """Returns what the network of a model takes."""
    task = task_named(manifest.task)
    source, target = (
        replace(image, window=window)
        for image, window in ((task.source, manifest.source_window), (task.target, manifest.target_window))
    )
    return NetworkInput(replace(task, source=source, target=target), manifest.spacing_mm, manifest.size, manifest.axis)


def _content(folder: Path, name: str) -> bytes:
    if not (folder / name).is_file():
        raise InputError("E-MODEL-07", folder=folder, name=name)
    return (folder / name).read_bytes()
