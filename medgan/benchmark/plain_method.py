"""MedGAN as `medgan train` builds it, by hand: without the configuration, so that torch and numpy are enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medgan.losses.adversarial import VANILLA
from medgan.losses.content import content_loss
from medgan.losses.objective import GeneratorInputs, Objective
from medgan.losses.perceptual import perceptual_loss
from medgan.losses.style import style_loss
from medgan.models.casnet import CasNet
from medgan.models.patchgan import PatchDiscriminator
from medgan.models.vgg import Vgg19
from medgan.training.autotune import PLAIN, Speed, fitted
from medgan.training.mixed_precision import in_precision
from medgan.training.state import Direction, State
from medgan.training.step import Batch, Updates

PERCEPTUAL, STYLE, CONTENT = 20.0, 1e-4, 1e-4
RATE, BETAS = 2e-4, (0.5, 0.999)
UPDATES = Updates(generator=3, discriminator=1)
PATCH = 16


@dataclass(frozen=True)
class Setting:
    """A size of MedGAN.

    Attributes:
        name: for a person.
        size: rows and columns, in pixels.
        num_blocks: U-blocks.
        base_channels: of both networks' first layers.
        style_blocks: of VGG-19, from 1.
        content_blocks: of VGG-19, from 1.
        batch_size: slices a generator update.
        seed: of both networks' first weights.
    """

    name: str
    size: int
    num_blocks: int
    base_channels: int
    style_blocks: tuple[int, ...]
    content_blocks: tuple[int, ...]
    batch_size: int
    seed: int = 0

    @property
    def depth(self) -> int:
        """Encoder layers a block, down to one pixel."""
        return min(8, (self.size & -self.size).bit_length() - 1)

    def text(self) -> str:
        """For a person."""
        deepest = max(*self.style_blocks, *self.content_blocks)
        return (
            f"{self.name} ({self.size} px, {self.num_blocks} blocks, base {self.base_channels}, VGG-19 to block "
            f"{deepest}, batch {self.batch_size})"
        )


QUICK = Setting("quick", 64, 2, 16, (1,), (1, 2), 8)
PAPER = Setting("paper", 256, 6, 64, (1, 5), (1, 2, 3, 4), 1)


def build_generator(setting: Setting) -> CasNet:
    """On the CPU, from the setting's seed."""
    torch.manual_seed(setting.seed)
    return CasNet(num_blocks=setting.num_blocks, base_channels=setting.base_channels, depth=setting.depth)


def build_discriminator(setting: Setting) -> PatchDiscriminator:
    """On the CPU, from the setting's seed."""
    torch.manual_seed(setting.seed + 1)
    return PatchDiscriminator(patch=PATCH, base_channels=setting.base_channels, spectral_norm=True)


def build_extractor(setting: Setting) -> Vgg19:
    """VGG-19 as deep as the terms look, random from a fixed seed, frozen, on the CPU."""
    torch.manual_seed(0)
    extractor = Vgg19(max(*setting.style_blocks, *setting.content_blocks))
    for layer in extractor.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return extractor.requires_grad_(False).eval()


def build_state(setting: Setting, device: torch.device, *, precision: str = "float32", speed: Speed = PLAIN) -> State:
    """Freshly initialized networks and their optimizers.

    Args:
        setting: how large.
        device: where.
        precision: "float32" or "bfloat16", of the networks' arithmetic.
        speed: memory format and compiler.
    """
    generator, discriminator, extractor = (
        fitted(in_precision(build(setting).to(device), precision, device), one)
        for build, one in ((build_generator, speed), (build_discriminator, speed.eager()), (build_extractor, speed))
    )
    generator_optimizer, discriminator_optimizer = (
        torch.optim.Adam(network.parameters(), lr=RATE, betas=BETAS, fused=device.type == "cuda" or None)
        for network in (generator, discriminator)
    )
    return State([Direction(generator, discriminator)], generator_optimizer, discriminator_optimizer, extractor)


def build_objective(setting: Setting) -> Objective:
    """MedGAN's four terms for the generator, one for the discriminator."""

    def chosen(features: tuple[Tensor, ...], blocks: tuple[int, ...]) -> list[Tensor]:
        return [features[block - 1] for block in blocks]

    def style(views: GeneratorInputs) -> Tensor:
        mine, theirs = (chosen(seen, setting.style_blocks) for seen in (views.output_features, views.target_features))
        return style_loss(mine, theirs)

    def content(views: GeneratorInputs) -> Tensor:
        mine, theirs = (chosen(seen, setting.content_blocks) for seen in (views.output_features, views.target_features))
        return content_loss(mine, theirs)

    return Objective(
        generator={
            "adversarial": (1.0, lambda views: VANILLA.fool(views.logits)),
            "perceptual": (PERCEPTUAL, lambda views: perceptual_loss(views.output_levels, views.target_levels)),
            "style": (STYLE, style),
            "content": (CONTENT, content),
        },
        discriminator={
            "adversarial": (1.0, lambda seen: VANILLA.real(seen.real.logits) + VANILLA.fake(seen.fake.logits))
        },
    )


def random_batches(setting: Setting, device: torch.device, *, seed: int = 0) -> Iterator[Batch]:
    """Three random batches in [-1, 1] on the device, again and again."""
    draw = torch.Generator().manual_seed(seed)
    shape = (UPDATES.batches, 2, setting.batch_size, 1, setting.size, setting.size)
    batches = (torch.rand(shape, generator=draw) * 2 - 1).to(device)
    while True:
        yield from (tuple(pair) for pair in batches)
