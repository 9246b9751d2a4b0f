"""Whole folders with a registered model: fetch, translate, tell how far it is and how long it takes."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medgan.data.dicom.attributes import ModelFacts
from medgan.inference.dicom_folder import translate_folder
from medgan.inference.saved_model import load_translator, read_manifest
from medgan.registry.versions import fetched, reached
from medgan.units import duration


def translate_with(model: str, source: Path, out: Path, *, uri: str) -> None:
    """Translates every fitting series below a folder; the same call again goes on where it stopped.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        source: a folder of DICOM files.
        out: a new or empty folder, or one that this version has written to before.
        uri: the registry.

    Raises:
        InputError: no such model, nothing to translate, or `out` is taken.
        JobError: some series could not be translated, or the registry is away.
    """
    with reached(uri), fetched(model, uri=uri) as (folder, name, version):
        facts = ModelFacts(name=name, version=version, digest=read_manifest(folder).weights_sha256)
        translator = load_translator(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    print(f"{name} version {version}")
    with warnings.catch_warnings(record=True) as noted, Advance() as advance:
        try:
            translate_folder(translator, source, out, facts=facts, progress=advance.say, advance=advance)
        finally:
            for note in dict.fromkeys(str(warning.message) for warning in noted if _is_our_own(warning)):
                advance.say(f"note: {note}")
    print("Synthetic images, for research only; not for diagnosis.")


def _is_our_own(warning: warnings.WarningMessage) -> bool:
    """Other packages' warnings quote the values they complain of, which may name a patient."""
    return Path(warning.filename).is_relative_to(Path(__file__).parent)


class Advance:
    """Shows slices done, and the time that the rest will take: as a bar on a terminal, else in lines."""

    def __init__(self) -> None:
        columns = (TextColumn("slices"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, disable=not sys.stdout.isatty(), transient=True)
        self._task = self._bar.add_task("slices", total=None)
        self._began, self._left = time.monotonic(), ""

    def __enter__(self) -> Advance:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Takes in how many slices are done, of how many."""
        self._bar.update(self._task, completed=done, total=total)
        if 0 < done < total:
            self._left = f"; about {duration((time.monotonic() - self._began) / done * (total - done))} left"
        else:
            self._left = ""

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar.disable:
            print(line + self._left * line.startswith("series "), flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
