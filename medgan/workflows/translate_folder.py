"""Translates whole folders of DICOM series with a registered model."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import medgan
from medgan.data.atomic_write import writing
from medgan.data.dicom.attributes import ModelFacts
from medgan.inference import series_steps
from medgan.inference.dicom_folder import translate_folder
from medgan.inference.saved_model import load_translator, read_manifest
from medgan.processes.crew import Crew, get_ready, limit_of
from medgan.registry.versions import fetched, reached
from medgan.workflows.events import Note, Notify, advancing, ignore, say

PROCESSES = 2  # one reads, one writes
LONGEST_S = 3600.0  # for one series, or the headers of a hundred files


@dataclass(frozen=True)
class TranslatedFolder:
    """Says which version of a model translated a folder, and which folders of series it wrote."""

    name: str
    version: str
    series: tuple[Path, ...]


def translate_with(
    model: str, source: Path, out: Path, *, uri: str, frames: Literal["same", "any"] = "same", notify: Notify = ignore
) -> TranslatedFolder:
    """Translates every fitting series below a folder; the same call again goes on where it stopped.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        source: a folder of DICOM or NIfTI files.
        out: a new or empty folder, or one that this version has written to before.
        frames: "any": a source without a frame of reference is translated too; the result gets a new one.

    Raises:
        InputError: no such model, nothing to translate, or `out` is taken.
        JobError: some series could not be translated, or the registry is away.
    """
    get_ready(series_steps.__name__)
    with reached(uri), fetched(model, uri=uri) as (folder, name, version):
        facts = ModelFacts(name=name, version=version, digest=read_manifest(folder).weights_sha256)
        translator = load_translator(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    notify(Note(f"{name} version {version}"))
    limit = limit_of(PROCESSES, LONGEST_S)
    with writing(out), warnings.catch_warnings(record=True) as noted, Crew(PROCESSES, limit) as callers:
        try:
            advance = advancing(notify, "slices")
            written = translate_folder(
                translator,
                source,
                out,
                facts=facts,
                progress=say(notify),
                advance=advance,
                frames=frames,
                callers=callers,
            )
        finally:
            for note in dict.fromkeys(str(warning.message) for warning in noted if _is_our_own(warning)):
                notify(Note(f"note: {note}"))
    return TranslatedFolder(name, version, tuple(written))


def _is_our_own(warning: warnings.WarningMessage) -> bool:
    """Returns whether medgan wrote a warning: others quote the values they complain about, which may name a patient."""
    return Path(warning.filename).is_relative_to(Path(medgan.__file__).parent)
