"""Reads a series for the network, and writes what the network made of it: both may run in a child process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydicom.uid import generate_uid

from medgan.data.atomic_write import appearing
from medgan.data.dicom.attributes import ModelFacts
from medgan.data.dicom.tolerance import DAMAGE
from medgan.data.dicom.writer import write_derived
from medgan.data.nifti import is_nifti, write_nifti
from medgan.data.reader import read_volume, representative_headers
from medgan.data.series import Series
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.inference.output_folders import MODEL, SOURCE, source_images
from medgan.inference.translator import NetworkInput, Placed, place
from medgan.tasks import Task

NOT_WRITTEN = "the derived series could not be made from the headers of its source"


@dataclass(frozen=True)
class SourceSeries:
    """Holds a source as the network takes it.

    Attributes:
        digest: of the file of a NIfTI image; empty for DICOM.
    """

    series: Series
    placed: Placed
    digest: str = ""


def read_series(series: Series, wanted: NetworkInput, frames: Literal["same", "any"]) -> SourceSeries:
    """Reads a series and brings it to the network's grid.

    Args:
        frames: "any": a series without a frame of reference gets a new one; "same": it is refused.

    Raises:
        InputError: the series cannot be used.
    """
    volume = read_volume(series)
    if is_nifti(series.files[0]):
        return SourceSeries(series, place(volume, wanted), *source_images(series))
    if not series.frame_of_reference:
        if frames == "same":
            raise InputError("E-TRANSLATE-10", modality=series.modality)
        note = "no frame of reference in the source; the result has a new one"
        volume = replace(volume, frame_of_reference=generate_uid(prefix=None), notes=(*volume.notes, note))
    return SourceSeries(series, place(volume, wanted))


def write_series(
    derived: Volume, series: Series, digest: str, folder: Path, task: Task, facts: ModelFacts
) -> Sequence[Path]:
    """Writes a translated series as its source was, DICOM or NIfTI, into a folder that appears when it is whole.

    Args:
        series, digest: the source, see `SourceSeries`.

    Raises:
        InputError: the headers of the source do not allow it.
    """
    if not is_nifti(series.files[0]):
        headers = representative_headers(series)
        for header in headers if not series.frame_of_reference else ():
            header.FrameOfReferenceUID = derived.frame_of_reference
        try:
            return write_derived(derived, headers, folder, task=task, model=facts)
        except (InputError, OSError):  # such as a full disk
            raise
        except DAMAGE as error:
            raise InputError("E-HEADER-01", message=NOT_WRITTEN, name=type(error).__name__) from error
    modality = task.target.modality
    name = f"synthetic_{modality.lower()}.nii.gz"
    fields = {
        "SyntheticData": "YES", "Modality": modality, "Units": derived.unit, MODEL: str(facts), SOURCE: digest,
        "Description": "Synthetic image, for research only; not for diagnosis.",
    }  # fmt: skip
    with appearing(folder) as partial:
        write_nifti(derived, partial / name, description=str(facts), facts=fields)
    return [folder / name]
