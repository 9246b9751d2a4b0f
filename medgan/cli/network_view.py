"""Shows the networks and the objective of a configuration."""

from rich.console import Console
from rich.table import Table

from medgan.config import Config
from medgan.training.build_networks import without_effect
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.workflows.describe_networks import Layer, Reading, looks_at, read_discriminator, read_generator


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
    """Returns the rows of a table; blocks that repeat the first one of a chain are one row each."""
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
