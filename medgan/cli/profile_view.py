"""Shows where the time of a training step goes."""

from rich.console import Console
from rich.table import Table

from medgan.benchmark.step_profile import StepProfile


def show_profile(console: Console, found: StepProfile) -> None:
    """Prints two tables, of parts and of operators, and what share of the device's peak the step reaches."""
    looked_at_s = sum(found.parts.values())
    parts = _table("part of a step")
    for name, spent in sorted(found.parts.items(), key=lambda part: -part[1]):
        parts.add_row(name, f"{1000 * spent:.4g}", f"{spent / looked_at_s:.1%}")
    console.print(parts)
    console.print(
        f"{1000 * looked_at_s:.4g} ms a step while it is measured in parts, {1000 * found.step_s:.4g} ms otherwise\n"
    )
    operators = _table("operator", "calls a step")
    for one in found.operators:
        operators.add_row(one.name, f"{1000 * one.seconds:.4g}", f"{one.share:.1%}", f"{one.calls:g}")
    console.print(operators)
    speed = found.flops / found.step_s
    console.print(
        f"{found.flops / 1e9:.4g} GFLOP a step (convolutions and products), {speed / 1e9:.4g} GFLOP/s: "
        f"{speed / found.peak:.1%} of a large {found.product} product's {found.peak / 1e9:.4g} GFLOP/s",
        soft_wrap=True,
    )


def _table(first: str, *more: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for heading in ("ms a step", "share", *more):
        table.add_column(heading, justify="right")
    return table
