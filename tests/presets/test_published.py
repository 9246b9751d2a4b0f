"""The presets' numbers are those of the papers (PAPER, sections 2, 3 and 5)."""

import pytest
import torch
from refusal import refusal

from medgan.config import flatten, uses_discriminator
from medgan.errors import InputError
from medgan.models.casnet import CasNet
from medgan.presets.by_name import PRESETS, preset_named, quick
from medgan.training.build_networks import build_generator

pytestmark = pytest.mark.unit

ALL = {
    "data.size": 256, "train.batch_size": 1, "train.epochs": 200, "train.minutes": None, "train.ema_decay": 0,
    "train.precision": "float32", "train.discriminator_steps": 1, "optim.generator_lr": 2e-4,
    "optim.discriminator_lr": 2e-4, "optim.beta1": 0.5, "optim.beta2": 0.999, "optim.clip_norm": None,
    "generator.base_channels": 64, "generator.depth": None, "metrics.lpips": "none",
}  # fmt: skip
U_BLOCK = {
    "generator.network": "casnet", "generator.block": "u", "generator.num_blocks": 1, "generator.norm": "instance",
    "generator.dropout": 0, "generator.between_blocks": "tanh", "generator.block_input": "previous",
    "train.generator_steps": 1, "train.pool_size": 0, "train.pairs": "own", "optim.schedule": "constant",
    "optim.clip_weights": None,
}  # fmt: skip
PATCH_16 = {
    "discriminator.network": "patch", "discriminator.patch": 16, "discriminator.base_channels": 64,
    "discriminator.norm": "instance", "discriminator.spectral_norm": True, "discriminator.sees": "source_and_image",
    "loss.adversarial": "vanilla",
}  # fmt: skip
PATCH_70 = PATCH_16 | {
    "discriminator.patch": 70, "discriminator.norm": "batch", "discriminator.spectral_norm": False,
}  # fmt: skip
MEDGAN_BLOCKS = {
    "extractor.network": "vgg19", "loss.style_blocks": [1, 5], "loss.content_blocks": [1, 2, 3, 4],
    "loss.perceptual_weights": None,
}  # fmt: skip
UNET_256 = U_BLOCK | {"generator.norm": "batch", "generator.dropout": 0.5}

SETTINGS = {
    "medgan": U_BLOCK | PATCH_16 | MEDGAN_BLOCKS | {"generator.num_blocks": 6, "train.generator_steps": 3},
    "medgan_1g": U_BLOCK | PATCH_16 | MEDGAN_BLOCKS,
    "cgan": U_BLOCK | PATCH_16,
    "perceptual": U_BLOCK | PATCH_16 | {"loss.perceptual_weights": None},
    "style_content": U_BLOCK | PATCH_16 | MEDGAN_BLOCKS,
    "unet_l1": U_BLOCK | {"generator.block": "double", "generator.depth": 4},
    "pix2pix": UNET_256 | PATCH_70 | {"optim.schedule": "linear"},
    "pan": UNET_256 | PATCH_70 | {"loss.perceptual_weights": [5, 1, 1, 1, 5], "loss.margin": 50},
    "id_cgan": PATCH_70 | {
        "generator.network": "shallow", "generator.norm": "batch", "discriminator.base_channels": 48,
        "extractor.network": "vgg19", "loss.content_blocks": [2],
    },
    "fila_sgan": {
        "generator.network": "filament", "discriminator.network": "filament", "loss.adversarial": "vanilla",
        "extractor.network": "vgg19",
    },
    "cyclegan": {
        "generator.network": "resnet", "generator.num_blocks": 9, "generator.norm": "instance", "generator.dropout": 0,
        "discriminator.network": "patch", "discriminator.patch": 70, "discriminator.sees": "image",
        "discriminator.norm": "instance", "discriminator.spectral_norm": False, "loss.adversarial": "lsgan",
        "loss.cycle_distance": "l1", "loss.cycle_share": None, "train.pool_size": 50, "train.generator_steps": 1,
        "optim.schedule": "linear",
        "train.pairs": "shuffled",
    },
    "discogan": {
        "generator.network": "discogan", "generator.norm": "batch", "discriminator.network": "discogan",
        "discriminator.sees": "image", "discriminator.norm": "batch", "loss.adversarial": "vanilla",
        "loss.cycle_distance": "l2", "loss.cycle_share": [0.01, 0.5], "train.generator_steps": 2, "train.pool_size": 0,
        "train.pairs": "shuffled",
    },
    "refinegan": {
        "generator.network": "casnet", "generator.block": "residual", "generator.num_blocks": 2,
        "discriminator.network": "residual", "loss.adversarial": "wasserstein", "optim.clip_weights": None,
        "train.generator_steps": 1,
    },
    "vae": {
        "generator.network": "variational", "generator.norm": "instance", "train.generator_steps": 1,
        "train.pairs": "own", "optim.schedule": "constant",
    },
}  # fmt: skip
"""Preset -> the settings in its row of the table, except its weights."""

WEIGHTS = {
    "medgan": {"adversarial": 1, "perceptual": 20, "style": 1e-4, "content": 1e-4},
    "medgan_1g": {"adversarial": 1, "perceptual": 20, "style": 1e-4, "content": 1e-4},
    "cgan": {"adversarial": 1},
    "perceptual": {"adversarial": 1, "perceptual": 20},
    "style_content": {"adversarial": 1, "style": 1e-4, "content": 1e-4},
    "unet_l1": {"l1": 1},
    "pix2pix": {"adversarial": 1, "l1": 100, "discriminator": 0.5},
    "pan": {"adversarial": 1, "perceptual": 1, "discriminator": 0.5, "margin": 1},
    "id_cgan": {"adversarial": 1, "content": 150, "l2": 150},
    "fila_sgan": {"adversarial": 1, "style": 10, "content": 1, "tv": 100},
    "cyclegan": {"adversarial": 2, "cycle": 10, "identity": 5},
    "discogan": {"adversarial": 0.1, "feature_matching": 0.9, "cycle": 1},
    "refinegan": {"adversarial": 1, "l1": 100, "stages": 100, "gradient_penalty": 10},
    "vae": {"l1": 1, "kl": 0.01},
}
"""Preset -> every weight that is not 0; the discriminator's is 1 unless it is given."""


def test_preset_tables_hold_every_preset():
    assert SETTINGS.keys() == WEIGHTS.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_preset_has_numbers_of_its_paper(name):
    flat, expected = flatten(PRESETS[name]()), ALL | SETTINGS[name]
    assert {path: flat[path] for path in expected} == expected


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_preset_minimizes_terms_of_its_paper_only(name):
    weights = {
        path.removeprefix("loss.lambda_"): value
        for path, value in flatten(PRESETS[name]()).items()
        if path.startswith("loss.lambda_") and value
    }
    assert weights == {"discriminator": 1} | WEIGHTS[name]


def test_only_vae_and_unet_l1_presets_have_no_discriminator():
    assert [name for name in PRESETS if not uses_discriminator(PRESETS[name]())] == ["vae", "unet_l1"]


def test_medgan_preset_has_six_u_blocks_of_eight_layers():
    with torch.device("meta"):
        generator = build_generator(PRESETS["medgan"]())
    assert isinstance(generator, CasNet)
    assert [len(block.encoder) for block in generator.blocks] == [8] * 6
    assert sum(parameter.numel() for parameter in generator.blocks[0].parameters()) == 54_413_313
    assert generator.divisor == 256


def test_ablation_presets_differ_in_terms_only():
    rows = [flatten(PRESETS[name]()) for name in ("cgan", "perceptual", "style_content", "medgan_1g")]
    differing = {path for path in rows[0] if len({str(row[path]) for row in rows}) > 1}
    assert differing == {"loss.lambda_perceptual", "loss.lambda_style", "loss.lambda_content"}
    medgan, one = flatten(PRESETS["medgan"]()), rows[-1]
    assert {path for path in one if one[path] != medgan[path]} == {"generator.num_blocks", "train.generator_steps"}


def test_quick_pan_preset_keeps_weights_of_first_and_last_level():
    assert quick(PRESETS["pan"]()).loss.perceptual_weights == (5, 1, 1, 5)


def test_preset_named_returns_preset():
    assert preset_named("pix2pix") == PRESETS["pix2pix"]()


@pytest.mark.parametrize(
    ("name", "hint"), [("medgna", ". Did you mean medgan?"), ("pix2px", ". Did you mean pix2pix?"), ("zzz", ".")]
)
def test_preset_named_refuses_unknown_name_with_nearest(name, hint):
    with pytest.raises(InputError, check=refusal("E-PRESET-01", presets=", ".join(PRESETS), name=name, hint=hint)):
        preset_named(name)
