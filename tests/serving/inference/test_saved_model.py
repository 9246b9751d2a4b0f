from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from refusal import refusal

from medgan.config import Config, with_values
from medgan.errors import InputError
from medgan.inference.saved_model import MANIFEST, WEIGHTS, ModelManifest, load_translator, read_manifest, save_model
from medgan.inference.translator import translate_slices
from medgan.training.build_networks import build_generator

pytestmark = pytest.mark.unit


def test_load_translator_restores_weights_and_settings(model_folder: Path, config: Config) -> None:
    translator = load_translator(model_folder)
    fresh = build_generator(config).state_dict()
    for name, tensor in translator.network.state_dict().items():
        expected = 1.5 * fresh[name] if name in dict(translator.network.named_parameters()) else fresh[name]
        torch.testing.assert_close(tensor, expected)
    assert not translator.network.training
    assert (translator.task.name, translator.spacing_mm, translator.size) == ("pet2ct", 4.0, 16)
    assert (translator.task.source.window, translator.task.target.window) == ((0.0, 10.0), (-1000.0, 2000.0))


def test_model_loaded_twice_predicts_same(model_folder: Path) -> None:
    suv = np.random.default_rng(3).uniform(0, 10, (2, 16, 16)).astype(np.float32)
    first, second = (translate_slices(load_translator(model_folder), suv) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.min() >= -1000 and first.max() <= 2000 and np.ptp(first) > 0


def test_save_model_records_digest_and_intended_use(model_folder: Path) -> None:
    written = read_manifest(model_folder)
    assert len(written.weights_sha256) == 64
    assert json.loads((model_folder / MANIFEST).read_text())["intended_use"] == "research only"


def test_load_translator_refuses_damaged_weights(model_folder: Path) -> None:
    content = bytearray((model_folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (model_folder / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, check=refusal("E-MODEL-05", folder=model_folder / WEIGHTS)):
        load_translator(model_folder)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_load_translator_refuses_missing_file(model_folder: Path, name: str) -> None:
    (model_folder / name).unlink()
    with pytest.raises(InputError, check=refusal("E-MODEL-07", folder=model_folder, name=name)):
        load_translator(model_folder)


def test_load_translator_refuses_weights_of_other_network(
    tmp_path: Path, config: Config, manifest: ModelManifest
) -> None:
    wider = build_generator(with_values(config, {"generator.base_channels": 8}))
    save_model(tmp_path, generator_state=wider.state_dict(), manifest=manifest)
    with pytest.raises(InputError, check=refusal("E-MODEL-06", folder=tmp_path / WEIGHTS)) as caught:
        load_translator(tmp_path)
    assert "size mismatch" in caught.value.fields["reason"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("schema_version", 2, refusal("E-MODEL-04", field="schema_version", given="2")),
        ("surprise", 1, refusal("E-MODEL-04", field="surprise", msg="Extra inputs are not permitted", given="1")),
        ("spacing_mm", -1.0, refusal("E-MODEL-04", field="spacing_mm", given="-1.0")),
        ("task", "ct2pet", refusal("E-TASK-01", name="ct2pet")),
    ],
)
def test_load_translator_refuses_wrong_field_of_manifest(
    model_folder: Path, field: str, value: object, expected: Callable[[BaseException], bool]
) -> None:
    content = json.loads((model_folder / MANIFEST).read_text())
    (model_folder / MANIFEST).write_text(json.dumps({**content, field: value}))
    with pytest.raises(InputError, check=expected):
        load_translator(model_folder)


def test_model_manifest_refuses_window_with_low_above_high(manifest: ModelManifest) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelManifest.model_validate({**manifest.model_dump(), "source_window": (10.0, 0.0)})
    error = caught.value.errors()[0]["ctx"]["error"]
    assert refusal("E-MODEL-03", name="source_window", low=10.0, high=0.0)(error)


def test_load_translator_loads_model_without_recorded_patients(model_folder: Path) -> None:
    content = json.loads((model_folder / MANIFEST).read_text())
    for field in ("training_patients", "validation_patients", "key_id"):
        del content[field]
    (model_folder / MANIFEST).write_text(json.dumps(content))
    manifest = read_manifest(model_folder)
    assert (manifest.training_patients, manifest.validation_patients, manifest.key_id) == ((), (), "")
    load_translator(model_folder)
