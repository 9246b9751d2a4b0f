"""From a configuration to networks, objective and state: the only place that sees both."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import nn

from medgan.config import Config, generator_depth
from medgan.data.dataset import PreparedDataset
from medgan.engine.checkpoint import restore
from medgan.engine.loop import Training
from medgan.engine.runtime import Runtime
from medgan.engine.state import State
from medgan.losses.adversarial import ADVERSARIAL
from medgan.losses.content import content_loss
from medgan.losses.objective import Objective
from medgan.losses.perceptual import perceptual_loss
from medgan.losses.style import style_loss
from medgan.models.casnet import CasNet
from medgan.models.extractor import Vgg19, load_extractor
from medgan.models.patch import PatchDiscriminator


def build_generator(config: Config) -> CasNet:
    """The generator, on the CPU, initialized from `train.seed`."""
    torch.manual_seed(config.train.seed)
    settings = config.generator
    return CasNet(
        num_blocks=settings.num_blocks,
        base_channels=settings.base_channels,
        depth=generator_depth(config),
        norm=settings.norm,
        between_blocks=settings.between_blocks,
    )


def build_discriminator(config: Config) -> PatchDiscriminator:
    """The discriminator, on the CPU, initialized from `train.seed`."""
    torch.manual_seed(config.train.seed + 1)
    settings = config.discriminator
    return PatchDiscriminator(
        patch=settings.patch,
        base_channels=settings.base_channels,
        norm=settings.norm,
        spectral_norm=settings.spectral_norm,
    )


def build_objective(config: Config) -> Objective:
    """The weighted terms of `loss`."""
    loss = config.loss
    adversarial = ADVERSARIAL[loss.adversarial]

    def chosen(features: tuple[torch.Tensor, ...], blocks: tuple[int, ...]) -> list[torch.Tensor]:
        return [features[block - 1] for block in blocks]

    return Objective(
        adversarial=adversarial,
        terms={
            "adversarial": (loss.lambda_adversarial, lambda views: adversarial.fool(views.logits)),
            "l1": (loss.lambda_l1, lambda views: nn.functional.l1_loss(views.output, views.target)),
            "perceptual": (
                loss.lambda_perceptual,
                lambda views: perceptual_loss(views.output_levels, views.target_levels),
            ),
            "style": (
                loss.lambda_style,
                lambda views: style_loss(
                    chosen(views.output_features, loss.style_blocks), chosen(views.target_features, loss.style_blocks)
                ),
            ),
            "content": (
                loss.lambda_content,
                lambda views: content_loss(
                    chosen(views.output_features, loss.content_blocks),
                    chosen(views.target_features, loss.content_blocks),
                ),
            ),
        },
    )


def deepest_block(config: Config) -> int:
    """How many extractor blocks the objective needs; 0: none at all."""
    loss = config.loss
    style = max(loss.style_blocks) if loss.lambda_style else 0
    return max(style, max(loss.content_blocks) if loss.lambda_content else 0)


@cache
def frozen_extractor(weights: str, deepest: int, device: torch.device) -> Vgg19:
    """The extractor on a device; built once a process, for it never changes."""
    return load_extractor(weights, deepest).to(device)


def build_state(config: Config, runtime: Runtime) -> State:
    """Freshly initialized networks on the runtime's device, and their optimizers."""
    generator, discriminator = runtime.prepare(build_generator(config)), runtime.prepare(build_discriminator(config))
    optim, deepest = config.optim, deepest_block(config)
    betas = (optim.beta1, optim.beta2)
    return State(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=optim.generator_lr, betas=betas),
        discriminator_optimizer=torch.optim.Adam(discriminator.parameters(), lr=optim.discriminator_lr, betas=betas),
        extractor=frozen_extractor(config.extractor.weights, deepest, runtime.device) if deepest else None,
    )


def build_training(config: Config, dataset: PreparedDataset, runtime: Runtime, *, folder: Path) -> Training:
    """A training on a prepared data set, brought to where `folder`'s last checkpoint was, if it has one."""
    state = build_state(config, runtime)
    restore(folder, state)
    return Training(
        state=state,
        objective=build_objective(config),
        train=dataset.slices("train"),
        validation=dataset.slices("validation"),
        runtime=runtime,
        batch_size=config.train.batch_size,
        generator_steps=config.train.generator_steps,
        seed=config.train.seed,
    )
