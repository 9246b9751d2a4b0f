"""From a configuration and a data set to a training."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from medgan.build.networks import (
    build_discriminator,
    build_generator,
    deepest_block,
    frozen_extractor,
    in_precision,
)
from medgan.build.objective import build_objective
from medgan.config import Config, uses_discriminator, with_values
from medgan.data.dataset import PreparedDataset, Unpaired
from medgan.engine.checkpoint import restore
from medgan.engine.evaluate import Perceptual
from medgan.engine.loop import Length, Training
from medgan.engine.pool import Pool
from medgan.engine.runtime import Runtime
from medgan.engine.state import State, Way
from medgan.engine.steps import Updates
from medgan.errors import InputError
from medgan.metrics.lpips import lpips, read_heads
from medgan.models.extractor import load_extractor

LPIPS_FILES = {
    "alex": ("alexnet", "alexnet*.pth", "alex.pth"),
    "squeeze": ("squeezenet", "squeezenet*.pth", "squeeze.pth"),
}
"""`metrics.lpips` -> network, its weights' and its LPIPS heads' file names."""


def build_state(config: Config, runtime: Runtime) -> State:
    """Freshly initialized networks on the runtime's device, and their optimizers."""
    ways = [build_way(config, runtime, number) for number in range(2 if config.loss.lambda_cycle else 1)]
    optim, deepest, precision = config.optim, deepest_block(config), config.train.precision
    judges = [way.discriminator for way in ways if way.discriminator is not None]
    extractor = config.extractor
    return State(
        ways=ways,
        generator_optimizer=_adam(config, [way.generator for way in ways], optim.generator_lr),
        discriminator_optimizer=_adam(config, judges, optim.discriminator_lr) if judges else None,
        extractor=frozen_extractor(extractor.network, extractor.weights, deepest, runtime.device, precision)
        if deepest
        else None,
        average=_average(config, runtime.device) if config.train.ema_decay else None,
    )


def build_way(config: Config, runtime: Runtime, number: int) -> Way:
    """The networks of one way of translation: 0 from source to target, 1 back."""

    def ready(network: nn.Module) -> nn.Module:
        return runtime.prepare(in_precision(network, config.train.precision, runtime.device))

    return Way(
        generator=ready(build_generator(config, way=number)),
        discriminator=ready(build_discriminator(config, way=number)) if uses_discriminator(config) else None,
        pool=Pool(config.train.pool_size),
    )


def updates_of(config: Config) -> Updates:
    """How a step of this training updates."""
    return Updates(
        generator=config.train.generator_steps,
        discriminator=config.train.discriminator_steps if uses_discriminator(config) else 0,
        clip_norm=config.optim.clip_norm,
        clip_weights=config.optim.clip_weights,
        ema_decay=config.train.ema_decay,
    )


def length_of(config: Config) -> Length:
    """When this training is over."""
    return Length(config.train.epochs, config.train.minutes)


def build_training(
    config: Config,
    dataset: PreparedDataset,
    runtime: Runtime,
    *,
    folder: Path,
    given: Literal["source", "target"] = "source",
) -> Training:
    """A training on a prepared data set, brought to where `folder`'s last checkpoint was, if it has one."""
    state = build_state(config, runtime)
    restore(folder, state)
    slices = dataset.slices("train", given=given)
    return Training(
        state=state,
        objective=build_objective(config),
        train=Unpaired(slices, seed=config.train.seed) if config.train.pairs == "shuffled" else slices,
        validation=dataset.slices("validation", given=given),
        runtime=runtime,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        length=length_of(config),
        updates=updates_of(config),
        schedule=config.optim.schedule,
        augment=config.train.augment,
        perceptual=build_perceptual(config, runtime.device),
        select=config.metrics.select,
    )


def build_perceptual(config: Config, device: torch.device) -> Perceptual | None:
    """LPIPS as `metrics` asks for it, or none.

    Raises:
        InputError: the folder lacks a weights file, or holds another network's.
    """
    settings = config.metrics
    return None if settings.lpips == "none" else _lpips(settings.lpips, settings.lpips_weights, device)


def with_lpips(config: Config) -> Config:
    """The configuration with LPIPS's weights at hand, in a folder that every worker finds, or refused."""
    if config.metrics.lpips == "none":
        return config
    folder = Path(config.metrics.lpips_weights).expanduser().absolute()
    found = with_values(config, {"metrics.lpips_weights": str(folder)})
    build_perceptual(found, torch.device("cpu"))
    return found


@cache
def _lpips(kind: str, folder: str, device: torch.device) -> Perceptual:
    network, weights, heads = LPIPS_FILES[kind]
    extractor = load_extractor(network, str(_found(folder, weights)), len(read_heads(_found(folder, heads)))).to(device)
    return partial(lpips, extractor=extractor, heads=[head.to(device) for head in read_heads(_found(folder, heads))])


def _found(folder: str, pattern: str) -> Path:
    found = sorted(Path(folder).expanduser().rglob(pattern))
    if not found:
        raise InputError(
            f"metrics.lpips_weights: expected a file {pattern} below {folder}; there is none (torchvision's "
            "weights, and those of github.com/richzhang/PerceptualSimilarity, lpips/weights/v0.1)"
        )
    return found[0]


def _average(config: Config, device: torch.device) -> nn.Module:
    network = in_precision(build_generator(config), config.train.precision, device).to(device)
    return network.requires_grad_(False)


def _adam(config: Config, networks: list[nn.Module], rate: float) -> torch.optim.Optimizer:
    parameters = [parameter for network in networks for parameter in network.parameters()]
    betas = (config.optim.beta1, config.optim.beta2)
    return torch.optim.Adam([{"params": parameters, "initial_lr": rate}], lr=rate, betas=betas)
