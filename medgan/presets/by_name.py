"""Returns presets by name, and reduces any of them for a quick trial."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from medgan.config import TAUGHT, Config, with_values
from medgan.errors import InputError
from medgan.presets.cycle_methods import cyclegan, discogan
from medgan.presets.medgan import cgan, medgan, medgan_1g, perceptual, style_content, unet_l1
from medgan.presets.paired_methods import fila_sgan, id_cgan, pan, pix2pix, refinegan, vae

PRESETS: dict[str, Callable[[], Config]] = {
    preset.__name__: preset
    for preset in (
        medgan,
        medgan_1g,
        cgan,
        perceptual,
        style_content,
        pix2pix,
        pan,
        id_cgan,
        fila_sgan,
        cyclegan,
        discogan,
        refinegan,
        vae,
        unet_l1,
    )
}

QUICK_SIZE, QUICK_PATCH, QUICK_BLOCK = 64, 34, 2


def preset_named(name: str) -> Config:
    """Returns the preset of that name.

    Raises:
        InputError: there is no preset of that name.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f". Did you mean {near[0]}?" if near else "."
        raise InputError("E-PRESET-01", presets=", ".join(PRESETS), name=name, hint=hint)
    return PRESETS[name]()


def configured(name: str, overrides: Mapping[str, Any], *, small: bool = False) -> Config:
    """Returns the preset of that name, reduced if `small`, and then changed by the user's settings."""
    config = preset_named(name)
    return with_values(quick(config) if small else config, overrides)


def quick(config: Config) -> Config:
    """Returns the reduced method: 64 px, narrow, few blocks, small patches, taught features, shifts, six epochs."""
    values: dict[str, Any] = {
        "data.size": QUICK_SIZE,
        "generator.num_blocks": min(config.generator.num_blocks, 3),
        "generator.base_channels": config.generator.base_channels // 4,
        "discriminator.patch": min(config.discriminator.patch, QUICK_PATCH),
        "discriminator.base_channels": config.discriminator.base_channels // 4,
        "extractor.weights": TAUGHT,
        "loss.style_blocks": _shallow(config.loss.style_blocks),
        "loss.content_blocks": _shallow(config.loss.content_blocks),
        "optim.generator_lr": 1e-3,
        "train.augment": "flip_shift",
        "train.epochs": 6,
        "train.batch_size": 8,
    }
    weights = config.loss.perceptual_weights
    if weights is not None:
        values["loss.perceptual_weights"] = (*weights[:3], weights[-1])  # patches of 34 pixels have four levels
    return with_values(config, values)


def _shallow(blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(block for block in blocks if block <= QUICK_BLOCK) or (QUICK_BLOCK,)
