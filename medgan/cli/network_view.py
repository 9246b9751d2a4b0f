"""Shows the networks and the objective of a configuration."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from medgan.config import Config, flatten
from medgan.losses.gradient_shares import HARDLY_ACTS
from medgan.training.build_networks import without_effect
from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.workflows.describe_networks import LATER, START, Inspected, Layer, Reading, looks_at


def show_networks(console: Console, found: Inspected) -> None:
    """Prints both networks, layer by layer, and the objective, term by term, with the shares of the gradient."""
    config, judge = found.config, found.discriminator
    size = config.data.size
    _show(console, f"generator: {config.generator.network}", found.generator, size)
    if judge is None:
        console.print("discriminator: none, no weighted term looks at one\n")
    else:
        _show(console, f"discriminator: {config.discriminator.network}, sees {config.discriminator.sees}", judge, size)
    if config.loss.lambda_cycle:
        console.print("Both twice: there and back.\n")
    _show_objective(console, config)
    if found.shares:
        _show_shares(console, found)
    unused = ", ".join(without_effect(config))
    if unused:
        console.print(f"\nWithout effect here: {unused}", soft_wrap=True)


def show_settings(console: Console, config: Config) -> None:
    """Prints every setting and its value."""
    console.print("\n[bold]settings[/bold]")
    for path, value in flatten(config).items():
        console.print(f"{path:<32} {value}", markup=False)


def described_as_json(found: Inspected, *, with_settings: bool) -> str:
    """Returns the description of a method as JSON."""
    objective = build_objective(found.config)
    content: dict[str, Any] = {
        "generator": asdict(found.generator),
        "discriminator": asdict(found.discriminator) if found.discriminator else None,
        "objective": {
            network: {name: weight for name, (weight, _) in terms.items() if weight}
            for network, terms in (("generator", objective.generator), ("discriminator", objective.discriminator))
        },
        "without_effect": without_effect(found.config),
    }
    if found.shares:
        content |= {"shares": found.shares, "steps": found.steps}
    if with_settings:
        content["settings"] = flatten(found.config)
    return json.dumps(content, indent=2)


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


def _show_shares(console: Console, found: Inspected) -> None:
    """Prints each term's share of the gradient, and says which terms hardly act."""
    console.print("\n[bold]share of the gradient at the generator's output[/bold]")
    table = Table("term", "at the start", f"after {found.steps} steps", box=None, pad_edge=False)
    start, later = found.shares[START], found.shares[LATER]
    for term in start:
        table.add_row(term, f"{100 * start[term]:.3g} %", f"{100 * later.get(term, 0.0):.3g} %")
    console.print(table)
    if idle := [term for term in start if max(start[term], later.get(term, 0.0)) < HARDLY_ACTS]:
        console.print(f"Below 1 %: {', '.join(idle)}. These terms hardly act; a larger weight changes that.")


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
