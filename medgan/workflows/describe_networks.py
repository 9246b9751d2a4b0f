"""Reads a configuration as its networks and its objective: `medgan inspect` prints what this finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medgan.config import Config, uses_discriminator, with_values
from medgan.training.build_networks import build_discriminator, build_generator, without_effect
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.workflows.acceptance import features_of

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """A convolution: its name in the state dict, what it is, what it gives, and how many numbers it learns."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Reading:
    """A network, read.

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


def read_generator(config: Config) -> Reading:
    """The generator, on shapes alone."""
    with torch.device("meta"):
        network = build_generator(config)
        images = (torch.zeros(1, 1, config.data.size, config.data.size),)
    return _read(network, images, _field(build_generator(_thin(config)), config.data.size, num_images=1))


def read_discriminator(config: Config) -> Reading | None:
    """The discriminator, on shapes alone; none where no term looks at one."""
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
    """The same connections with two channels and no norm, which would spread a field over the whole image."""
    thin = {f"{section}.{name}": value for section in ("generator", "discriminator") for name, value in THIN.items()}
    return with_values(config, {**thin, "discriminator.spectral_norm": False, "generator.dropout": 0.0})


THIN = {"base_channels": 2, "norm": "none"}


def _field(network: nn.Module, size: int, *, num_images: int) -> int | None:
    """By gradient: the extent of what the output's middle depends on, every weight a positive mean."""
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


def show_networks(console: Console, config: Config) -> None:
    """Prints both networks, layer by layer, and the objective, term by term."""
    size = config.data.size
    _show(console, f"generator: {config.generator.network}", read_generator(config), size)
    judge = read_discriminator(config)
    if judge is None:
        console.print("discriminator: none, no weighted term looks at one\n")
    else:
        _show(console, f"discriminator: {config.discriminator.network}, sees {config.discriminator.sees}", judge, size)
    if config.loss.lambda_cycle:
        console.print("Both twice: there and back.\n")
    _show_objective(console, config)
    unused = ", ".join(without_effect(config))
    if unused:
        console.print(f"\nWithout effect on these networks: {unused}", soft_wrap=True)


def _show(console: Console, title: str, reading: Reading, size: int) -> None:
    field = "the whole image" if reading.field is None else f"{reading.field} x {reading.field} pixels"
    console.print(f"[bold]{title}[/bold]")
    console.print(
        f"{reading.parameters:,} parameters, {reading.flops / 1e9:.3g} GFLOP a slice of {size} x {size}, "
        f"receptive field: {field}"
    )
    table = Table("layer", "convolution", "gives (C, H, W)", "parameters", box=None, pad_edge=False)
    for name, kind, shape, numbers in _folded(reading.layers):
        table.add_row(name, kind, shape, numbers)
    console.print(table)
    console.print()


def _folded(layers: list[Layer]) -> list[tuple[str, str, str, str]]:
    """Rows of a table; blocks that repeat the first one of a chain are one row each."""
    rows = []
    first: dict[str, tuple[str, tuple[int, ...], int]] = {}
    repeated: dict[str, int] = {}
    for layer in layers:
        parts = layer.name.split(".", 2)
        chained = parts[0] == "blocks" and len(parts) == 3
        if chained and parts[1] != "0" and first.get(parts[2]) == (layer.kind, layer.shape, layer.parameters):
            repeated[parts[1]] = repeated.get(parts[1], 0) + layer.parameters
            continue
        if chained:
            first.setdefault(parts[2], (layer.kind, layer.shape, layer.parameters))
        rows.append((layer.name, layer.kind, " x ".join(map(str, layer.shape)), f"{layer.parameters:,}"))
    rows += [(f"blocks.{block}", "as blocks.0", "", f"{numbers:,}") for block, numbers in repeated.items()]
    return rows


def _show_objective(console: Console, config: Config) -> None:
    console.print("[bold]objective[/bold]")
    table = Table("of", "term", "weight", "looks at", box=None, pad_edge=False)
    objective = build_objective(config)
    for network, terms in (("generator", objective.generator), ("discriminator", objective.discriminator)):
        for name, (weight, _) in terms.items():
            if weight:
                table.add_row(network, name, f"{weight:g}", looks_at(config, name))
    console.print(table)
    updates, optim = updates_of(config), config.optim
    turns = [f"{updates.generator} of the generator (Adam {optim.generator_lr:g})"]
    if updates.discriminator:
        turns.append(f"{updates.discriminator} of the discriminator (Adam {optim.discriminator_lr:g})")
    rest = f"beta1 {optim.beta1:g}, learning rate {optim.schedule}"
    console.print(f"\nupdates a step: {', '.join(turns)}; {rest}", soft_wrap=True)
    if config.loss.cycle_share:
        first, last = config.loss.cycle_share
        console.print(f"cycle share r from {first:g} to {last:g}: (1 - r) x other terms + r x cycle")


def looks_at(config: Config, term: str) -> str:
    """What a term compares, in a few words."""
    loss = config.loss
    blocks = {"style": loss.style_blocks, "content": loss.content_blocks}
    if term in blocks:
        numbers = ", ".join(map(str, blocks[term]))
        return f"blocks {numbers} of {features_of(config)}"
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
