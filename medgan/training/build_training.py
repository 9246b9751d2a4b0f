"""Builds a training from a configuration and a data set."""

import copy
import itertools
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from medgan.config import Config, flatten, uses_discriminator, with_values
from medgan.data.dataset import PreparedDataset, Unpaired
from medgan.errors import InputError
from medgan.metrics.lpips import lpips, read_heads
from medgan.models.extractor import load_extractor
from medgan.training.autotune import PLAIN, Speed, Step, align, fastest, fitted, keep, recall
from medgan.training.build_networks import build_discriminator, build_generator, deepest_block
from medgan.training.build_objective import build_objective
from medgan.training.checkpoint import restore
from medgan.training.frozen_features import frozen_extractor
from medgan.training.image_pool import Pool
from medgan.training.loop import Length, Training
from medgan.training.mixed_precision import NO_BFLOAT16, has_bfloat16, in_precision
from medgan.training.runtime import Runtime, SingleProcess
from medgan.training.state import Direction, State
from medgan.training.step import Updates, train_step
from medgan.training.validation import Perceptual

LPIPS_FILES = {
    "alex": ("alexnet", "alexnet*.pth", "alex.pth"),
    "squeeze": ("squeezenet", "squeezenet*.pth", "squeeze.pth"),
}
"""Maps `metrics.lpips` to the network and the file names of its weights and of its LPIPS heads."""

FREE = (
    "train.seed", "train.epochs", "train.minutes", "train.pairs", "train.augment", "optim.generator_lr",
    "optim.discriminator_lr", "optim.beta1", "optim.beta2", "optim.schedule", "metrics.select",
)  # fmt: skip
"""Lists the settings that do not change the time of a step."""
BEGAN_IN_STEP = "speed not measured: BEGAN balances its errors over all processes, so one cannot step alone"


def build_state(config: Config, runtime: Runtime, speed: Speed = PLAIN) -> State:
    """Builds freshly initialized networks on the runtime's device, and their optimizers."""
    directions = [
        build_direction(config, runtime, number, speed) for number in range(2 if config.loss.lambda_cycle else 1)
    ]
    optim = config.optim
    discriminators = [direction.discriminator for direction in directions if direction.discriminator is not None]
    return State(
        directions=directions,
        generator_optimizer=_adam(config, [direction.generator for direction in directions], optim.generator_lr),
        discriminator_optimizer=_adam(config, discriminators, optim.discriminator_lr) if discriminators else None,
        extractor=_extractor(config, runtime.device, speed) if deepest_block(config) else None,
        average=_average(config, runtime.device, speed) if config.train.ema_decay else None,
    )


def build_direction(config: Config, runtime: Runtime, number: int, speed: Speed = PLAIN) -> Direction:
    """Builds the networks of a direction: 0 from source to target, 1 from target to source."""

    def ready(network: nn.Module, speed: Speed) -> nn.Module:
        return runtime.prepare(fitted(in_precision(network, config.train.precision, runtime.device), speed))

    adversarial = uses_discriminator(config)
    return Direction(
        generator=ready(build_generator(config, direction=number), speed),
        discriminator=ready(build_discriminator(config, direction=number), speed.eager()) if adversarial else None,
        pool=Pool(config.train.pool_size),
    )


def updates_of(config: Config) -> Updates:
    """Returns the updates of a step of this training."""
    return Updates(
        generator=config.train.generator_steps,
        discriminator=config.train.discriminator_steps if uses_discriminator(config) else 0,
        clip_norm=config.optim.clip_norm,
        clip_weights=config.optim.clip_weights,
        ema_decay=config.train.ema_decay,
        accumulate=config.train.accumulate,
    )


def length_of(config: Config) -> Length:
    """Returns the length of this training."""
    return Length(config.train.epochs, config.train.minutes)


def build_training(
    config: Config,
    dataset: PreparedDataset,
    runtime: Runtime,
    *,
    folder: Path,
    given: Literal["source", "target"] = "source",
) -> Training:
    """Builds a training on a prepared data set, restored from the last checkpoint in `folder`, if there is one."""
    state = build_state(config, runtime, _speed(config, runtime, folder))
    restore(folder, state)
    align((state.generator_optimizer, state.discriminator_optimizer))
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
    """Builds LPIPS as `metrics` sets it, or returns None.

    Raises:
        InputError: the folder lacks a weights file, or holds a file of another network.
    """
    settings = config.metrics
    return None if settings.lpips == "none" else _lpips(settings.lpips, settings.lpips_weights, device)


def with_lpips(config: Config) -> Config:
    """Returns the configuration with an absolute path of the LPIPS weights, or raises InputError without weights."""
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
        raise InputError("E-TRAIN-01", pattern=pattern, folder=folder)
    return found[0]


def _average(config: Config, device: torch.device, speed: Speed) -> nn.Module:
    network = in_precision(build_generator(config), config.train.precision, device).to(device)
    return fitted(network, speed.eager()).requires_grad_(False)


def _extractor(config: Config, device: torch.device, speed: Speed) -> nn.Module:
    """Returns the frozen extractor; another speed than the plain one gets a copy, because the plain one is shared."""
    extractor = frozen_extractor(config.extractor, deepest_block(config), device, config.train.precision)
    unmeasured = replace(speed, ratio=PLAIN.ratio, notes=PLAIN.notes)
    return extractor if unmeasured == PLAIN else _fast_copy(extractor, unmeasured)


@lru_cache(maxsize=1)
def _fast_copy(extractor: nn.Module, speed: Speed) -> nn.Module:
    """Copies the extractor with a speed; the next training uses the same copy, which is not compiled again."""
    return fitted(copy.deepcopy(extractor), speed)


def _adam(config: Config, networks: list[nn.Module], rate: float) -> torch.optim.Optimizer:
    parameters = [parameter for network in networks for parameter in network.parameters()]
    betas = (config.optim.beta1, config.optim.beta2)
    fused = parameters[0].is_cuda or None  # on a CPU it is hardly faster, and rounds differently
    return torch.optim.Adam([{"params": parameters, "initial_lr": rate}], lr=rate, betas=betas, fused=fused)


def _speed(config: Config, runtime: Runtime, folder: Path) -> Speed:
    """Returns the plain or the measured speed; keeps in the folder what is measured or has notes."""
    speed = _measured(config, runtime, folder) if config.train.speed == "measured" else PLAIN
    if config.train.precision == "bfloat16" and not has_bfloat16(runtime.device):
        speed = replace(speed, notes=(*dict.fromkeys((*speed.notes, NO_BFLOAT16)),))
    if runtime.rank == 0 and (speed.notes or config.train.speed == "measured"):
        keep(folder, speed)
    return speed


def _measured(config: Config, runtime: Runtime, folder: Path) -> Speed:
    """Returns the speed that rank 0 finds fastest on its device, or that the folder keeps."""
    if config.loss.adversarial == "began" and runtime.size > 1:
        return replace(PLAIN, notes=(BEGAN_IN_STEP,))
    chosen = [recall(folder) or _fastest(_alike(config), runtime.device, runtime.size)] if runtime.rank == 0 else []
    speed = runtime.gather(chosen)[0]
    if speed.compiled != "no":
        _make_room(_alike(config))
    return speed


def _alike(config: Config) -> Config:
    """Returns one configuration for all whose steps cost the same: rates, weights and seeds do not matter."""
    paths, plain = flatten(config), flatten(Config())
    weights = {path: 1.0 for path, value in paths.items() if path.startswith("loss.lambda_") and value}
    return with_values(config, {**{path: plain[path] for path in FREE}, **weights})


@cache
def _fastest(config: Config, device: torch.device, ranks: int) -> Speed:
    """Measures the fastest speed, once a process for the same shapes."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return fastest(lambda speed: random_step(config, device, ranks=ranks, speed=speed), device, ranks=ranks)


@lru_cache(maxsize=1)
def _make_room(config: Config) -> None:
    """Drops code that was compiled for other shapes, so that it does not fill the memory."""
    torch.compiler.reset()


def random_step(config: Config, device: torch.device, *, ranks: int = 1, speed: Speed = PLAIN) -> Step:
    """Returns a step of a new training in this process alone, on random images: one rank's share of a batch."""
    state, objective = build_state(config, SingleProcess(device), speed), build_objective(config)
    updates, size = updates_of(config), config.data.size
    source, target = torch.rand(2, config.train.batch_size // ranks, 1, size, size, device=device) * 2 - 1
    return lambda: train_step(state, objective, itertools.repeat((source, target)), updates)
