"""Keeps the folders of translated series: which are there already, of which model and source, and which come next."""

import glob
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import count, islice
from pathlib import Path

import pydicom

from medgan.data.bids import sidecar_of
from medgan.data.dicom.attributes import ModelFacts
from medgan.data.dicom.tolerance import DAMAGE
from medgan.data.nifti import is_nifti
from medgan.data.series import Series
from medgan.data.unpack import opened, read_bytes
from medgan.errors import InputError
from medgan.processes.crew import Callers

FIRST_FILE = "00001.dcm"
PARTIAL = "[0-9a-f]" * 8  # `appearing` puts this into the name of an incomplete folder
SOURCE, MODEL = "SourceSHA256", "Model"
"""The sidecar of a translated NIfTI image has these fields."""


def make_parent(place: Path, out: Path) -> None:
    """Makes the parent folder and the lock file in it, beside the result, which appears by renaming."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock_of(place).touch()
    except OSError as error:
        raise InputError("E-TRANSLATE-04", out=out, parent=place.parent, strerror=error.strerror) from None


def new_folders(out: Path, there: Mapping[Path, frozenset[str]], number: int, *, alone: bool) -> list[Path]:
    """Returns the folders of the next series; a series alone goes into the output folder itself."""
    if alone:
        return [out] * number
    named = (out / f"series-{place:03d}" for place in count(1))
    return list(islice((folder for folder in named if folder not in there), number))


def lock_of(place: Path) -> Path:
    """Returns the lock file beside the output folder."""
    return place.with_name(f".{place.name}.lock")


def written(out: Path, facts: ModelFacts) -> dict[Path, frozenset[str]]:
    """Returns folder -> source images of what this model wrote; removes incomplete folders of killed runs."""
    place = out.resolve()
    beside = place.parent.glob(f".{glob.escape(place.name)}.{PARTIAL}.partial")
    for partial in [*beside, *place.glob(f".series-*.{PARTIAL}.partial")]:
        shutil.rmtree(partial)
    if not out.exists():
        return {}
    refused = InputError("E-TRANSLATE-05", out=out, facts=facts)
    if not out.is_dir():
        raise refused
    alone = (out / FIRST_FILE).exists() or any(out.glob("*.nii.gz"))
    folders = [out] if alone else sorted(out.iterdir())
    there = {folder: _made_of(folder, facts) for folder in folders}
    if not all(images and "" not in images for images in there.values()):
        raise refused
    return there


def _made_of(folder: Path, facts: ModelFacts) -> frozenset[str]:
    """Returns what identifies the source of a translated series: instance UIDs, or the digest of a NIfTI file."""
    images = [_source_image(path, facts) for path in folder.glob("*.dcm")]
    return frozenset(images + [_source_nifti(path, facts) for path in folder.glob("*.json")])


def _source_nifti(sidecar: Path, facts: ModelFacts) -> str:
    try:
        fields = json.loads(sidecar.read_bytes())
        return str(fields[SOURCE]) if fields[MODEL] == str(facts) else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _source_image(path: Path, facts: ModelFacts) -> str:
    """Returns the instance UID of the slice that this model translated into the file; empty for any other file."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        made_by = str(header.ContributingEquipmentSequence[-1].ContributionDescription)
        return str(header.SourceImageSequence[0].ReferencedSOPInstanceUID) if made_by.endswith(str(facts)) else ""
    except DAMAGE:
        return ""


def missing(
    wanted: Sequence[Series], there: Mapping[Path, frozenset[str]], callers: Callers
) -> tuple[list[Series], list[str]]:
    """Returns the series without a folder, and a line for each whose folder was made from other slices."""
    left, outgrown = [], []
    for series in wanted:
        images = _images(series, callers) if there else frozenset()
        folder = next((folder for folder, made_of in there.items() if made_of & images), None)
        if folder is None:
            left.append(series)
        elif there[folder] != images:
            outgrown.append(
                f"{folder} was made of {len(there[folder])} files of a series that has {len(images)} now; "
                "remove it to have it made anew"
            )
    return left, outgrown


def _images(series: Series, callers: Callers) -> frozenset[str]:
    try:
        return callers.run(source_images, series)
    except InputError:  # told when the series is read
        return frozenset()


def source_images(series: Series) -> frozenset[str]:
    """Returns the slices' instance UIDs, or the digest of a NIfTI file; none if one file is not readable."""
    try:
        if is_nifti(series.files[0]):
            fields = json.dumps(dict(sidecar_of(series.files[0])), sort_keys=True).encode()
            return frozenset([hashlib.sha256(read_bytes(series.files[0]) + fields).hexdigest()])
        return frozenset(_instance_uid(path) for path in dict.fromkeys(series.files))
    except DAMAGE:
        return frozenset()


def _instance_uid(path: Path) -> str:
    with opened(path) as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"], force=True)
        return str(header.SOPInstanceUID)
