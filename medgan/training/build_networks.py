"""Builds networks from settings; each kind is one row of a table."""

from collections.abc import Callable

import torch
from torch import nn

from medgan.config import (
    JUDGED,
    Config,
    ExtractorConfig,
    LossConfig,
    OptimConfig,
    TrainConfig,
    generator_depth,
    uses_discriminator,
    with_values,
)
from medgan.errors import InputError
from medgan.losses.perceptual import perceptual_loss
from medgan.models.began import AutoencoderDiscriminator
from medgan.models.casnet import CasNet
from medgan.models.discogan import DiscoDiscriminator, DiscoGenerator
from medgan.models.extractor import load_extractor
from medgan.models.fila_sgan import FilamentDiscriminator, FilamentGenerator
from medgan.models.id_cgan import ShallowNet
from medgan.models.in_domain import Autoencoder
from medgan.models.patchgan import PatchDiscriminator
from medgan.models.refinegan import ResidualDiscriminator
from medgan.models.resnet import ResNet
from medgan.models.vae import VariationalNet

GENERATORS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "casnet": (
        CasNet,
        (
            "block",
            "num_blocks",
            "base_channels",
            "depth",
            "norm",
            "dropout",
            "between_blocks",
            "block_input",
            "gives",
            "recompute",
        ),
    ),
    "resnet": (ResNet, ("num_blocks", "base_channels", "norm", "dropout")),
    "shallow": (ShallowNet, ("base_channels", "norm")),
    "filament": (FilamentGenerator, ("base_channels", "norm")),
    "discogan": (DiscoGenerator, ("base_channels", "norm")),
    "variational": (VariationalNet, ("base_channels", "norm")),
    "autoencoder": (Autoencoder, ("base_channels",)),
}
"""Maps `generator.network` to its class and the settings that it takes; other settings have no effect."""

DISCRIMINATORS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "patch": (PatchDiscriminator, ("patch", "sees", "base_channels", "norm", "spectral_norm")),
    "residual": (ResidualDiscriminator, ("sees", "base_channels", "norm", "spectral_norm")),
    "filament": (FilamentDiscriminator, ("sees", "base_channels", "norm", "spectral_norm")),
    "discogan": (DiscoDiscriminator, ("sees", "base_channels", "norm", "spectral_norm")),
    "autoencoder": (AutoencoderDiscriminator, ("sees", "base_channels", "norm", "spectral_norm")),
}
"""Maps `discriminator.network` to its class and the settings that it takes."""


def build_generator(config: Config, *, direction: int = 0) -> nn.Module:
    """Builds a generator on the CPU, initialized from `train.seed`.

    Args:
        direction: 0 for source to target, 1 for target to source; each has its own random weights.
    """
    torch.manual_seed(config.train.seed + 2 * direction)
    network, names = GENERATORS[config.generator.network]
    values = {**dict(config.generator), "depth": generator_depth(config)}
    return network(**{name: values[name] for name in names})


def build_discriminator(config: Config, *, direction: int = 0) -> nn.Module:
    """Builds the discriminator of a direction on the CPU, initialized from `train.seed`."""
    torch.manual_seed(config.train.seed + 2 * direction + 1)
    network, names = DISCRIMINATORS[config.discriminator.network]
    return network(**{name: getattr(config.discriminator, name) for name in names})


def without_effect(config: Config) -> list[str]:
    """Returns the paths of settings that no network and no term of the loss looks at."""
    known = {
        "generator": {"network", *GENERATORS[config.generator.network][1]},
        "discriminator": {"network", *DISCRIMINATORS[config.discriminator.network][1]},
        "extractor": set(ExtractorConfig.model_fields) if deepest_block(config) else set(),
        "loss": set(LossConfig.model_fields) - _idle_in_loss(config),
        "optim": set(OptimConfig.model_fields),
        "train": set(TrainConfig.model_fields),
    }
    if not uses_discriminator(config):
        known["discriminator"].clear()
        known["optim"] -= {"discriminator_lr", "clip_weights"}
        known["train"] -= {"discriminator_steps", "pool_size"}
    return [
        f"{section}.{name}"
        for section, names in known.items()
        for name in type(getattr(config, section)).model_fields
        if name not in names
    ]


def _idle_in_loss(config: Config) -> set[str]:
    """Returns the settings of `loss` that belong to terms without a weight; weights themselves always count."""
    loss = config.loss
    needs = {
        "style_blocks": loss.lambda_style,
        "content_blocks": loss.lambda_content,
        "perceptual_weights": loss.lambda_perceptual or loss.lambda_margin,
        "cycle_distance": loss.lambda_cycle,
        "cycle_share": loss.lambda_cycle,
        "margin": loss.lambda_margin,
        **dict.fromkeys(("adversarial", *JUDGED), uses_discriminator(config)),
    }
    return {name for name, needed in needs.items() if not needed}


def deepest_block(config: Config) -> int:
    """Returns how many extractor blocks the objective needs; 0 where it needs no extractor."""
    loss = config.loss
    style = max(loss.style_blocks) if loss.lambda_style else 0
    return max(style, max(loss.content_blocks) if loss.lambda_content else 0)


def refuse_misfit(config: Config, *, slices: int) -> None:
    """Runs the networks on shapes alone; an error names the settings that torch would refuse in the first step.

    Args:
        slices: slices of a batch in each process.

    Raises:
        InputError: a network cannot take images of this size or a batch this small.
    """
    size = config.data.size
    plain = with_values(config, {"discriminator.spectral_norm": False})  # it takes time and changes no shape
    if slices % config.train.accumulate:
        raise InputError("E-NETWORK-16", slices=slices, accumulate=config.train.accumulate)
    slices //= config.train.accumulate
    if config.loss.lambda_mmd and slices < 2:
        raise InputError("E-NETWORK-17", slices=slices)
    try:
        with torch.device("meta"):
            source = torch.zeros(slices, 1, size, size)
            output = build_generator(config)(source)
            if uses_discriminator(config):
                levels = (output, *build_discriminator(plain)(source, output).features)
                perceptual_loss(levels, levels, config.loss.perceptual_weights)
            if deepest := deepest_block(config):
                load_extractor(config.extractor.network, "random", deepest)(output)
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Expected more than 1"):
            reason = (
                f"normalization of a map of one pixel needs more than {slices} slice in each process. Set "
                "train.batch_size higher, generator.depth lower, or the norm to none."
            )
        cause = error if isinstance(error, InputError) else InputError("E-NETWORK-18", reason=reason)
        raise cause.within("E-NETWORK-19", size=size, reason=reason) from None
