"""Describes the networks and the objective of a method: layers, parameters, FLOPs, receptive field, gradients."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medgan.config import Config, uses_discriminator, with_values
from medgan.losses.gradient_shares import shares_of
from medgan.paths import Place
from medgan.presets.by_name import configured
from medgan.tasks import Task
from medgan.training.build_networks import build_discriminator, build_generator, deepest_block
from medgan.training.build_objective import build_objective
from medgan.training.term_gradients import LATER_STEPS, norms_of_training
from medgan.workflows.events import Notify, advancing, ignore
from medgan.workflows.find_features import features_of, refuse_unfit_weights, with_weights
from medgan.workflows.requirements import (
    dataset_for,
    nothing_left_behind,
    refuse_too_few_slices,
    refuse_what_cannot_train,
)

START, LATER = "start", "later"
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """Describes a convolution: name in the state dict, kind, shape of its output, number of parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Reading:
    """Describes a network.

    Attributes:
        layers: its convolutions in the order they run.
        parameters: all it learns, norms included.
        flops: floating-point operations of one slice, a multiplication and an addition counted as two.
        field: pixels on a side that one pixel (or judgement) of the output depends on; none: the whole image.
    """

    layers: list[Layer]
    parameters: int
    flops: int
    field: int | None


@dataclass(frozen=True)
class InspectRequest:
    """Describes what is to be inspected (see `medgan inspect --help`); without `data` no gradient is measured."""

    task: Task
    place: Place
    preset: str = "medgan"
    data: str | None = None
    quick: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspected:
    """Describes a method.

    Attributes:
        discriminator: None where no term of the loss uses one.
        shares: "start" and "later" -> term -> its share of the gradient at the generator's output, untrained and after
            `steps` steps; empty without data.
    """

    config: Config
    generator: Reading
    discriminator: Reading | None
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: int = LATER_STEPS


def inspect(request: InspectRequest, notify: Notify = ignore) -> Inspected:
    """Describes a method; with data, takes a few steps of its training to measure gradients; they are not kept.

    Raises:
        InputError: the configuration or the data cannot be used.
    """
    config = configured(request.preset, request.overrides, small=request.quick)
    refuse_what_cannot_train(config, 1)
    if request.data is None:
        return described(config)
    deepest = deepest_block(config)
    with nothing_left_behind(request.place.output):
        refuse_unfit_weights(config, deepest)
        size = config.data.size
        dataset = dataset_for(request.data, request.task, size=size, place=request.place, notify=notify)
        slices = dataset.slices("train")
        refuse_too_few_slices(config, len(slices))
        config = with_weights(config, deepest, request.place, dataset, notify)
    objective, advance = build_objective(config).at(0.0), advancing(notify, "measurements of the gradient")
    weights = {name: weight for name, (weight, _) in objective.generator.items()}
    shares = {}
    for number, (name, norms) in enumerate(zip((START, LATER), norms_of_training(config, slices), strict=True), 1):
        shares[name] = shares_of(norms, weights)
        advance(number, 2)
    return replace(described(config), shares=shares)


def described(config: Config) -> Inspected:
    """Returns the description of a method's networks, computed on shapes alone."""
    return Inspected(config, read_generator(config), read_discriminator(config))


def read_generator(config: Config) -> Reading:
    """Returns the generator's description, computed on shapes alone."""
    with torch.device("meta"):
        network = build_generator(config)
        images = (torch.zeros(1, 1, config.data.size, config.data.size),)
    return _read(network, images, _field(build_generator(_thin(config)), config.data.size, num_images=1))


def read_discriminator(config: Config) -> Reading | None:
    """Returns the discriminator's description, computed on shapes alone; None where no loss term uses one."""
    if not uses_discriminator(config):
        return None
    with torch.device("meta"):
        network = build_discriminator(config)
        images = tuple(torch.zeros(2, 1, 1, config.data.size, config.data.size))
    return _read(network, images, _field(build_discriminator(_thin(config)), config.data.size, num_images=2))


def _read(network: nn.Module, images: tuple[Tensor, ...], field: int | None) -> Reading:
    layers: list[Layer] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            numbers = sum(parameter.numel() for parameter in module.parameters())
            layers.append(Layer(name, _kind(module), tuple(output.shape[1:]), numbers))

        return hook

    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_hook(note(name))
    with FlopCounterMode(display=False) as counter:
        network.eval()(*images)
    return Reading(layers, sum(one.numel() for one in network.parameters()), counter.get_total_flops(), field)


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return "fully connected"
    rows, columns = module.kernel_size  # type: ignore[misc]
    transposed = "transposed " if isinstance(module, nn.ConvTranspose2d) else ""
    return f"{transposed}{rows}x{columns}, stride {module.stride[0]}"  # type: ignore[index]


def _thin(config: Config) -> Config:
    """Returns the same connections with two channels and no norm, which would widen a field to the whole image."""
    thin = {f"{section}.{name}": value for section in ("generator", "discriminator") for name, value in THIN.items()}
    return with_values(config, {**thin, "discriminator.spectral_norm": False, "generator.dropout": 0.0})


THIN = {"base_channels": 2, "norm": "none"}


def _field(network: nn.Module, size: int, *, num_images: int) -> int | None:
    """Returns the receptive field, found by gradient: the extent of what the middle of the output depends on."""
    for name, parameter in network.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else parameter.numel()
        nn.init.constant_(parameter, 0 if name.endswith("bias") else 1 / fan_in)
    # faint, for each residual block doubles it: where the last tanh saturates, every gradient is exactly 0
    image = torch.full((1, 1, size, size), 1e-9, dtype=torch.float64, requires_grad=True)
    output = network.double().eval()(*[image] * num_images)
    judged = output if isinstance(output, Tensor) else output.logits
    judged[..., judged.shape[-2] // 2, judged.shape[-1] // 2].sum().backward()
    assert image.grad is not None, "the output depends on the image"
    columns = image.grad[0, 0].abs().sum(dim=0).nonzero()
    extent = int(columns.max() - columns.min()) + 1
    return extent if extent < size and columns.min() > 0 and columns.max() < size - 1 else None


def looks_at(config: Config, term: str) -> str:
    """Returns in a few words what a loss term compares."""
    loss = config.loss
    blocks = {"style": loss.style_blocks, "content": loss.content_blocks}
    if term in blocks:
        numbers = ", ".join(map(str, blocks[term]))
        return f"blocks {numbers} of the features ({features_of(config)})"
    if term == "perceptual":
        weights = (
            "all 1" if loss.perceptual_weights is None else ", ".join(f"{one:g}" for one in loss.perceptual_weights)
        )
        return f"the pixels and every discriminator layer, weights {weights}"
    words = {
        "adversarial": f"{loss.adversarial}, of the discriminator's logits",
        "l1": "output and target, pixel by pixel",
        "l2": "output and target, pixel by pixel",
        "tv": "neighboring pixels of the output",
        "stages": "each earlier block's output and the target, L1",
        "feature_matching": "mean discriminator features of output and target",
        "cycle": f"the source and what comes back, {loss.cycle_distance}",
        "identity": "the target and its own translation, L1",
        "mmd": "the batches' pixels",
        "kl": "mean and log variance of the latent",
        "margin": f"keeps the perceptual loss above {loss.margin:g}",
        "gradient_penalty": "slope of the judgement between target and output",
    }
    return words[term]
