"""Builds MedGAN as `medgan train` does, but without the configuration, so that torch and numpy are enough."""

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
    """Describes a size of MedGAN.

    Attributes:
        size: rows and columns, in pixels.
        base_channels: channels of the first layer of both networks.
        style_blocks, content_blocks: blocks of VGG-19 for these terms, from 1.
        batch_size: slices of a generator update.
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
        """Returns the number of encoder layers of a block, down to one pixel."""
        return min(8, (self.size & -self.size).bit_length() - 1)

    def text(self) -> str:
        """Returns the setting in words."""
        deepest = max(*self.style_blocks, *self.content_blocks)
        return (
            f"{self.name} ({self.size} px, {self.num_blocks} blocks, base {self.base_channels}, VGG-19 to block "
            f"{deepest}, batch {self.batch_size})"
        )


QUICK = Setting("quick", 64, 2, 16, (1,), (1, 2), 8)
PAPER = Setting("paper", 256, 6, 64, (1, 5), (1, 2, 3, 4), 1)


def build_generator(setting: Setting) -> CasNet:
    """Builds the generator on the CPU, from the setting's seed."""
    torch.manual_seed(setting.seed)
    return CasNet(num_blocks=setting.num_blocks, base_channels=setting.base_channels, depth=setting.depth)


def build_discriminator(setting: Setting) -> PatchDiscriminator:
    """Builds the discriminator on the CPU, from the setting's seed."""
    torch.manual_seed(setting.seed + 1)
    return PatchDiscriminator(patch=PATCH, base_channels=setting.base_channels, spectral_norm=True)


def build_extractor(setting: Setting) -> Vgg19:
    """Builds VGG-19 as deep as the terms need, random from a fixed seed, frozen, on the CPU."""
    torch.manual_seed(0)
    extractor = Vgg19(max(*setting.style_blocks, *setting.content_blocks))
    for layer in extractor.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return extractor.requires_grad_(False).eval()


def build_state(setting: Setting, device: torch.device, *, precision: str = "float32", speed: Speed = PLAIN) -> State:
    """Builds freshly initialized networks and their optimizers.

    Args:
        precision: "float32" or "bfloat16", for the computations of the networks.
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
    """Builds MedGAN's four terms for the generator and one for the discriminator."""

    def chosen(features: tuple[Tensor, ...], blocks: tuple[int, ...]) -> list[Tensor]:
        return [features[block - 1] for block in blocks]

    def style(inputs: GeneratorInputs) -> Tensor:
        blocks = setting.style_blocks
        return style_loss(chosen(inputs.output_features, blocks), chosen(inputs.target_features, blocks))

    def content(inputs: GeneratorInputs) -> Tensor:
        blocks = setting.content_blocks
        return content_loss(chosen(inputs.output_features, blocks), chosen(inputs.target_features, blocks))

    return Objective(
        generator={
            "adversarial": (1.0, lambda inputs: VANILLA.fool(inputs.logits)),
            "perceptual": (PERCEPTUAL, lambda inputs: perceptual_loss(inputs.output_levels, inputs.target_levels)),
            "style": (STYLE, style),
            "content": (CONTENT, content),
        },
        discriminator={
            "adversarial": (1.0, lambda inputs: VANILLA.real(inputs.real.logits) + VANILLA.fake(inputs.fake.logits))
        },
    )


def random_batches(setting: Setting, device: torch.device, *, seed: int = 0) -> Iterator[Batch]:
    """Yields three random batches in [-1, 1] on the device, repeatedly."""
    draw = torch.Generator().manual_seed(seed)
    shape = (UPDATES.batches, 2, setting.batch_size, 1, setting.size, setting.size)
    batches = (torch.rand(shape, generator=draw) * 2 - 1).to(device)
    while True:
        yield from (tuple(pair) for pair in batches)
