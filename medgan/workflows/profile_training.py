"""`medgan train --profile`: a few steps of a training, where their time goes, and nothing else."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from medgan.benchmark.step_profile import StepProfile, profile_steps
from medgan.benchmark.timing import described
from medgan.cli.summary import show_facts
from medgan.cli.terminal import quiet_engines
from medgan.distributed.worker import is_out_of_memory, out_of_memory
from medgan.errors import InputError, JobError
from medgan.training.build_training import build_training
from medgan.training.runtime import SingleProcess
from medgan.workflows.acceptance import nothing_left_behind
from medgan.workflows.train import TrainRequest, accepted

TRACE = "profile/trace.json"


def profile(request: TrainRequest, console: Console) -> None:
    """Takes a few steps of what is asked for, from its checkpoint if it has one; keeps a trace, and no training.

    Raises:
        InputError: as `medgan train`; or several workers.
        JobError: there is no memory for it.
    """
    if request.workers > 1:
        raise InputError("E-PROFILE-01", workers=request.workers)
    with nothing_left_behind(request.place.output):
        config, dataset, name = accepted(request, console)
    folder, runtime = request.place.checkpoints(name), SingleProcess()
    train, blocks = config.train, config.generator.num_blocks
    facts = {
        "profile": f"{name}: {config.data.size} px, {config.generator.network} of {blocks} blocks, batch "
        f"{train.batch_size} in {train.accumulate} part{'s' * (train.accumulate > 1)}, {train.precision}",
        "device": described(runtime.device),
        "trace": f"{folder / TRACE} (open it in chrome://tracing or ui.perfetto.dev)",
    }
    show_facts(console, facts)
    try:
        with quiet_engines(request.place.log_file(name)):
            found = profile_steps(build_training(config, dataset, runtime, folder=folder), folder / TRACE)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise JobError("E-PROFILE-02", out_of_memory=out_of_memory(config, runtime)) from None
    show_profile(console, found)


def show_profile(console: Console, found: StepProfile) -> None:
    """Two tables, of parts and of operators, and what the step reaches of the device's peak."""
    looked_at_s = sum(found.parts.values())
    parts = _table("part of a step")
    for name, spent in sorted(found.parts.items(), key=lambda part: -part[1]):
        parts.add_row(name, f"{1000 * spent:.4g}", f"{spent / looked_at_s:.1%}")
    console.print(parts)
    console.print(f"{1000 * looked_at_s:.4g} ms a step while it is looked at, {1000 * found.step_s:.4g} ms otherwise\n")
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
