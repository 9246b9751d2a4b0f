"""Commands and options keep their names: additions are fine, removals are not."""

from pathlib import Path

import pytest
import typer
from typer.main import get_command

from medgan.cli import registry_commands, search_commands
from medgan.cli.comparison_commands import reproduce_tables
from medgan.cli.main import app

pytestmark = pytest.mark.unit
FROZEN = Path(__file__).with_name("command_line.txt")
JOBS = {
    "jobs/promote.py": registry_commands.promote,
    "jobs/reproduce_tables.py": reproduce_tables,
    **{f"jobs/tune_{task}.py": search_commands.tune_task(task) for task in ("pet2ct", "mr_motion", "pet_denoise")},
}


def names_below(command, path: str) -> set[str]:
    """Each option and argument of a command and of the commands below it, such as `medgan train --preset`."""
    found = {f"{path} {name}" for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for name, inner in getattr(command, "commands", {}).items():
        found |= names_below(inner, f"{path} {name}")
    return found


def command_line() -> set[str]:
    found = names_below(get_command(app), "medgan")
    for path, function in JOBS.items():
        job = typer.Typer(add_completion=False)
        job.command()(function)
        found |= names_below(get_command(job), path)
    return found


def test_command_line_has_every_frozen_command_and_option():
    frozen = {*FROZEN.read_text().splitlines()}
    assert len(frozen) > 150 and frozen <= command_line()
