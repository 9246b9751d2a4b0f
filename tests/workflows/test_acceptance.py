"""The checks before a job starts: each refusal names the setting, the expected value and the given value."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refusal import refusal

from medgan.config import Config, with_values
from medgan.data.manifest import described
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.data.prepare.split import ROLES
from medgan.errors import InputError
from medgan.models.extractor_weights import save_encoder
from medgan.models.in_domain import Encoder
from medgan.models.squeezenet import SqueezeNet
from medgan.paths import find_place
from medgan.presets.by_name import configured
from medgan.tasks import TASKS
from medgan.workflows.find_features import features_of, with_weights
from medgan.workflows.requirements import (
    dataset_for,
    digest_of,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_what_cannot_train,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def place(tmp_path):
    return find_place(tmp_path / "output")


@pytest.fixture
def encoder(tmp_path):
    """A weights file like those that `medgan features` writes."""
    save_encoder(tmp_path / "encoder.safetensors", Encoder(base_channels=4))
    return tmp_path / "encoder.safetensors"


def content_on(network: str, weights: str) -> Config:
    """Returns a small method that uses the first block of an extractor."""
    return configured(
        "unet_l1",
        {
            "loss.lambda_content": 1.0,
            "loss.content_blocks": [1],
            "extractor.network": network,
            "extractor.weights": weights,
        },
        small=True,
    )


NO_DATA: Any = None  # nothing is taught


@pytest.mark.parametrize(("batch_size", "workers"), [(3, 2), (8, 3), (1, 2)])
def test_refuse_what_cannot_train_rejects_batch_that_workers_cannot_share(batch_size, workers):
    config = configured("unet_l1", {"train.batch_size": batch_size}, small=True)
    with pytest.raises(InputError, check=refusal("E-REQUEST-07", workers=workers, batch_size=batch_size)):
        refuse_what_cannot_train(config, workers)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_refuse_what_cannot_train_accepts_batch_that_workers_can_share(workers):
    refuse_what_cannot_train(configured("medgan", {"generator.depth": 4}, small=True), workers)


def test_refuse_what_cannot_train_rejects_mmd_on_single_slice_per_worker():
    config = configured("unet_l1", {"loss.lambda_mmd": 1.0, "train.batch_size": 4}, small=True)
    for workers in (1, 2):
        refuse_what_cannot_train(config, workers)
    with pytest.raises(InputError, check=refusal("E-NETWORK-17", slices=1)):
        refuse_what_cannot_train(config, 4)


def test_refuse_what_cannot_train_rejects_size_that_generator_cannot_halve():
    with pytest.raises(InputError, check=refusal("E-NETWORK-13", size=18, divisor=4, rows=18, columns=18)):
        refuse_what_cannot_train(with_values(Config(), {"generator.network": "resnet", "data.size": 18}), 1)


def test_refuse_too_few_slices_rejects_epoch_without_step():
    config = configured(
        "medgan", {"train.batch_size": 4}, small=True
    )  # three generator updates and one discriminator update: three batches
    refuse_too_few_slices(config, 12)
    with pytest.raises(InputError, check=refusal("E-REQUEST-09", batches=3, num_slices=11, batch_size=4)):
        refuse_too_few_slices(config, 11)


def test_refuse_too_few_slices_ignores_steps_of_unused_discriminator():
    steps = {"train.discriminator_steps": 5, "train.batch_size": 1}
    refuse_too_few_slices(configured("unet_l1", steps, small=True), 1)
    with pytest.raises(InputError, check=refusal("E-REQUEST-09", batches=5, num_slices=4, batch_size=1)):
        refuse_too_few_slices(configured("cgan", steps, small=True), 4)


def test_with_weights_leaves_random_and_unused_weights_unchanged(place):
    for config, deepest in ((content_on("vgg19", "random"), 1), (content_on("vgg19", "/no/such/file"), 0)):
        assert with_weights(config, deepest, place, NO_DATA) == config
    assert not place.output.exists()


def test_with_weights_makes_path_absolute(place, encoder, monkeypatch):
    monkeypatch.chdir(encoder.parent)
    config = with_weights(content_on("in_domain", encoder.name), 1, place, NO_DATA)
    assert config == content_on("in_domain", str(encoder))
    monkeypatch.setenv("HOME", str(encoder.parent))
    assert with_weights(content_on("in_domain", f"~/{encoder.name}"), 1, place, NO_DATA) == config


@pytest.mark.parametrize(
    ("network", "weights", "expected"),
    [
        ("vgg19", "/no/file.pth", refusal("E-WEIGHTS-04", path="/no/file.pth")),
        ("in_domain", "/no/file", refusal("E-WEIGHTS-07", path="/no/file")),
        ("in_domain", "download", refusal("E-WEIGHTS-01", network="in_domain", files="vgg19, alexnet, squeezenet")),
    ],
)
def test_with_weights_refuses_missing_weights(place, network, weights, expected):
    with pytest.raises(InputError, check=expected):
        with_weights(content_on(network, weights), 1, place, NO_DATA)


def test_with_weights_refuses_weights_of_another_network(place, encoder, tmp_path):
    squeezenet = tmp_path / "squeezenet.pth"
    torch.save(SqueezeNet(2).state_dict(), squeezenet)
    for network, file, expected in (
        ("vgg19", encoder, refusal("E-EXTRACTOR-04", name="features.0.0.bias")),
        ("vgg19", squeezenet, refusal("E-EXTRACTOR-04", name="features.3.squeeze.weight")),
        ("in_domain", squeezenet, refusal("E-WEIGHTS-08", path=squeezenet)),
    ):
        with pytest.raises(InputError, check=expected) as error:
            with_weights(content_on(network, str(file)), 1, place, NO_DATA)
        assert "extractor.weights: " in str(error.value) and str(file) in str(error.value)
    assert with_weights(content_on("squeezenet", str(squeezenet)), 1, place, NO_DATA)


def test_features_of_names_extractor_only_if_term_uses_extractor():
    assert features_of(content_on("in_domain", "/a/b.safetensors")) == "taught on target images (/a/b.safetensors)"
    assert features_of(configured("unet_l1", {})) == "none"


def refuse(output: Path) -> None:
    (output / "datasets").mkdir(parents=True, exist_ok=True)
    raise InputError("E-CONFIG-20", option="--workers", value=0)


def test_nothing_left_behind_removes_only_new_output_folder(tmp_path):
    with pytest.raises(InputError, check=refusal("E-CONFIG-20")), nothing_left_behind(tmp_path / "new"):
        refuse(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError, check=refusal("E-CONFIG-20")), nothing_left_behind(tmp_path / "old"):
        refuse(tmp_path / "old")
    assert (tmp_path / "old" / "datasets").exists()


def test_nothing_left_behind_keeps_folder_of_failed_or_finished_job(tmp_path):
    with pytest.raises(RuntimeError), nothing_left_behind(tmp_path / "failed"):
        (tmp_path / "failed").mkdir()
        raise RuntimeError
    with nothing_left_behind(tmp_path / "done"):
        (tmp_path / "done").mkdir()
    assert (tmp_path / "failed").exists() and (tmp_path / "done").exists()


def test_dataset_for_takes_only_prepared_data_set_of_same_task_and_size(tmp_path, place):
    source = write_phantoms(tmp_path / "phantoms", patients=3, slices=4, matrix=32)
    folder = prepare(PrepareRequest(source, TASKS["pet2ct"], 32, tmp_path / "datasets"))
    dataset = dataset_for(str(folder), TASKS["pet2ct"], size=32, place=place)
    assert dataset.folder == folder
    counts = ", ".join(f"1 {role} patient ({len(dataset.slices(role))} slices)" for role in ROLES)
    assert described(dataset.manifest).startswith(f"phantoms: {counts}, 32 px of 11 mm")
    with pytest.raises(InputError, check=refusal("E-REQUEST-06", wanted="pet2ct at 64 px", there="pet2ct at 32 px")):
        dataset_for(str(folder), TASKS["pet2ct"], size=64, place=place)
    with pytest.raises(InputError, check=refusal("E-REQUEST-06", wanted="mr_motion at 32 px", source=folder)):
        dataset_for(str(folder), TASKS["mr_motion"], size=32, place=place)


def test_digest_of_training_changes_with_younger_settings():
    plain = Config()
    assert digest_of(plain) != digest_of(with_values(plain, {"train.accumulate": 2, "train.batch_size": 2}))


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        ({}, "795e88f90d553e799279e8d2b323caa72d1f915a8d62263190b357c124c3be96"),
        (
            {"loss.lambda_content": 1e-4, "extractor.scale": "as_is"},
            "d5dc5879746709d27bc373aa2b903b8bf7e4a240eff5c93cb7012f240d6c0ac9",
        ),
    ],
)
def test_digest_of_training_is_that_of_earlier_medgan_where_features_are_the_same(values, digest):
    """The digests are those of commit d5bb1c7, which had no scale of features."""
    assert digest_of(with_values(Config(), values)) == digest


def test_digest_of_training_changes_with_scale_of_its_features():
    config = with_values(Config(), {"loss.lambda_content": 1e-4})
    assert digest_of(config) != digest_of(with_values(config, {"extractor.scale": "as_is"}))
