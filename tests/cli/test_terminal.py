"""The terminal shows the events of a workflow, with and without a screen."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from medgan.cli.terminal import Terminal
from medgan.workflows.events import Advance, Announcement, EpochDone, Note

pytestmark = pytest.mark.unit


def shown(*events, **console):
    """Returns the text that a terminal shows for these events."""
    screen = Console(file=io.StringIO(), width=120, **console)
    with Terminal(console=screen) as terminal:
        for event in events:
            terminal(event)
    return screen.file.getvalue()


def test_terminal_without_screen_prints_time_left():
    lines = shown(
        Advance("slices", 10, 30),
        Note("series 1 of 2: 10 slices written"),
        Advance("slices", 30, 30),
        Note("series 2 of 2: 20 slices written"),
    )
    assert lines.splitlines() == [
        "series 1 of 2: 10 slices written; about 0 s left",
        "series 2 of 2: 20 slices written",
    ]


def test_terminal_prints_note_without_markup():
    assert shown(Note("[bold]no markup[/bold] of a path [1]")) == "[bold]no markup[/bold] of a path [1]\n"


def test_terminal_prints_line_for_each_fact():
    assert shown(Announcement({"data": "6 patients", "output": "/x [1]"})).splitlines() == [
        "data      6 patients",
        "output    /x [1]",
        "",
    ]


@pytest.mark.parametrize(("left_s", "end"), [(100.0, "about 2 min left"), (0.0, "done")])
def test_terminal_prints_epoch_with_time_left(left_s, end):
    line = shown(EpochDone(2, 6, 0.5, "MAE 100 HU", 1.5, 0.625, left_s))
    assert line == f"epoch 2/6: val/ssim 0.500, MAE 100 HU, 1.5 s; best 0.625, {end}\n"


def test_terminal_with_screen_shows_bars_and_restores_cursor():
    seen = shown(
        Advance("patients prepared", 1, 2), EpochDone(1, 2, 0.5, "", 1.0, 0.5, 1.0), Note("a line"), force_terminal=True
    )
    assert "a line" in seen and seen.count("\x1b[?25h") == seen.count("\x1b[?25l")  # the cursor is back


def test_terminal_refuses_unknown_event():
    with pytest.raises(KeyError):
        shown(object())


def test_terminal_sends_engine_output_to_log_file_and_notes_to_screen(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from medgan.cli.terminal import Terminal\n"
        "from medgan.workflows.events import EnginesStart, Note\n"
        "with Terminal() as terminal:\n"
        "    terminal(EnginesStart(Path(sys.argv[1])))\n"
        "    os.write(1, b'chatter\\n'); print('more of it'); terminal(Note('for the person'))\n"
        "print('after')\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "logs" / "engines.log"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["for the person", "after"]
    log = (tmp_path / "logs" / "engines.log").read_text()
    assert "chatter" in log and "more of it" in log and "for the person" in log
