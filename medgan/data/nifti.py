"""Finds, reads and writes NIfTI images; names and sidecars give what the headers lack: patient, session, modality."""

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from medgan.data.atomic_write import write_atomically
from medgan.data.bids import sidecar_of, suv_of_sidecar
from medgan.data.dicom.geometry import Plane
from medgan.data.dicom.suv import SuvFactor
from medgan.data.nifti_names import MODALITIES, RESAMPLED, SHARED, NiftiName, named
from medgan.data.plausibility import AIR_HU, PADDING_HU, Bounds, check_values
from medgan.data.series import AXES, SYNTHETIC_LABEL, Problem, Series
from medgan.data.unpack import UNREADABLE, opened
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.processes.crew import HERE, Callers

SUFFIXES = (".nii", ".nii.gz")
SIDECAR_MODALITIES = {"PT": "PT", "PET": "PT", "CT": "CT", "MR": "MR", "MRI": "MR"}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's coordinates are RAS
IN_PLANE = {"axial": ((0, 1), (1, 1)), "coronal": ((0, 1), (2, -1)), "sagittal": ((1, 1), (2, -1))}
"""This maps a plane to the axes (0: x, 1: y, 2: z, LPS) and signs of increasing column, then of increasing row."""
ROUNDING = 1e-4  # of a direction's component: what float32 and text round
LONGEST = 16384  # voxels along an axis
DAMAGE = (ImageFileError, HeaderDataError, MemoryError, *UNREADABLE)


def is_nifti(path: Path) -> bool:
    """Returns whether the name is that of a NIfTI image."""
    return path.name.lower().endswith(SUFFIXES)


def find_nifti(
    paths: Sequence[Path], folder: Path, passed_over: Counter[str], callers: Callers = HERE, *, patient_level: int = 0
) -> tuple[list[Series], list[Problem], int]:
    """Returns a series for each image, the images that cannot be used, and the level of folders that names patients.

    Args:
        folder: folder that the stored paths are relative to.
        passed_over: counts masks and label images.
        callers: who reads the headers.
        patient_level: see `medgan.data.nifti_names.named`.
    """
    series: list[Series] = []
    problems: list[Problem] = []
    names, level = named(paths, folder, patient_level=patient_level)
    images = {path: name for path, name in names.items() if not name.is_mask}
    if len(images) < len(names):
        passed_over["mask or label image"] += len(names) - len(images)
    found = dict(callers.each(partial(_series, folder=folder, names=images), images))
    for path, name in images.items():
        one = found[path]
        if isinstance(one, InputError):
            problems.append(Problem(name.patient_id, str(one)))
        else:
            told = (f"the folder at level {level} names the patient",) if level > 1 and name.by_folder else ()
            series.append(replace(one, notes=(*one.notes, *told)))
    return series, problems, level


def along(series: Series, axis: str) -> Series:
    """Returns the NIfTI image with slices of another plane: "axial", "coronal" or "sagittal"."""
    if series.axis == axis:
        return series
    affine, shape, _ = _placed(series.files[0], series.modality)
    return _with_planes(series, affine, shape, axis)


def read_nifti(series: Series, bounds: Bounds) -> Volume:
    """Returns the voxels of an image in HU (CT), SUV (PT) or arbitrary units (anything else); NaN becomes background.

    Returns:
        float32 (slices, rows, columns), with the planes of the series.

    Raises:
        InputError: the image cannot be read, or its values are implausible for its modality.
    """
    path, modality = series.files[0], series.modality
    factor = suv_of_sidecar(sidecar_of(path), bounds) if modality == "PT" else SuvFactor(1.0, "the file's own values")
    affine, _, _ = _placed(path, modality)
    array = _turned(_voxels(path, modality), affine, series.axis)
    wanted = (len(series.files), *series.planes[0].size)
    if array.shape != wanted:
        raise InputError("E-NIFTI-03", modality=modality, wanted=wanted, found=array.shape)
    notes = [*series.notes, *factor.notes]
    missing = np.isnan(array)
    if missing.any():
        array[missing] = AIR_HU if modality == "CT" else 0.0
        notes.append(f"{modality}: {missing.mean():.0%} of the voxels are NaN and were taken as background")
    array *= np.float32(factor.factor)
    check_values(array, modality, factor.made_of)
    if modality == "CT":
        array[array < PADDING_HU] = AIR_HU
    return Volume(array, series.affine, series.frame_of_reference, series.unit, tuple(notes), factor.made_of)


def write_nifti(volume: Volume, path: Path, *, description: str, facts: dict[str, Any]) -> None:
    """Writes a synthetic volume as NIfTI-1, and a JSON file beside it that says how it was made.

    Args:
        path: file to write, with the suffix `.nii.gz`.
        description: at most 79 characters, for the header's `descrip`.
        facts: fields of the JSON file.
    """
    image = nibabel.Nifti1Image(volume.array.transpose(2, 1, 0), LPS @ volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header["descrip"] = f"{SYNTHETIC_LABEL}; {description}"[:79].encode()
    write_atomically(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), json.dumps(facts, indent=1).encode())
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=1))


def _modality(path: Path, name: NiftiName) -> str:
    found = name.modalities or {SIDECAR_MODALITIES.get(str(sidecar_of(path).get("Modality", "")), "")}
    return next(iter(found)) if len(found) == 1 else ""


def _series(path: Path, folder: Path, names: Mapping[Path, NiftiName]) -> Series:
    name = names[path]
    modality = _modality(path, name)
    if not modality:
        got = " and ".join(sorted(name.modalities)) or "none"
        raise InputError("E-NIFTI-05", known=", ".join(MODALITIES), got=got)
    affine, shape, mended = _placed(path, modality)
    fields = sidecar_of(path)
    found = Series(
        patient_id=name.patient_id,
        study_uid=name.study,
        series_uid=str(path.relative_to(folder)),
        frame_of_reference=SHARED,
        modality=modality,
        files=(path,),
        frames=(0,),
        planes=(),
        original=not name.words & RESAMPLED,
        synthetic=str(fields.get("SyntheticData", "")) == "YES",
        unit_named=bool({"suv", "suvbw"} & name.words or fields.get("Units")),
        notes=(f"{modality}: {mended}",) if mended else (),
    )
    return _with_planes(found, affine, shape, AXES[int(np.abs(_directions(affine)[:, 2]).argmax())])


def _with_planes(series: Series, affine: np.ndarray, shape: tuple[int, ...], axis: str) -> Series:
    """Returns the series with the planes (LPS) of the image turned so that its slices lie in `axis`."""
    turned, sizes = _turned_affine(affine, shape, axis)
    columns, rows, slices = sizes
    spacing = np.linalg.norm(turned[:3, :3], axis=0)
    directions = turned[:3, :3] / spacing
    plane = Plane(
        position=tuple(turned[:3, 3].tolist()),
        orientation=(*directions[:, 0].tolist(), *directions[:, 1].tolist()),
        pixel_spacing=(float(spacing[1]), float(spacing[0])),
        size=(rows, columns),
    )
    steps = [turned[:3, 3] + number * turned[:3, 2] for number in range(slices)]
    planes = tuple(plane._replace(position=tuple(step.tolist())) for step in steps)
    values = {**series.__dict__, "files": series.files[:1] * slices, "frames": tuple(range(slices)), "planes": planes}
    return Series(**{name: values[name] for name in Series.__dataclass_fields__})


def _placed(path: Path, modality: str) -> tuple[np.ndarray, tuple[int, ...], str]:
    """Returns the affine of the file's axes (LPS, mm), their lengths, and what was mended.

    The sform counts where its code is above 0, else the qform where its code is; the standard has no third way but
    none at all.
    """
    try:
        with opened(path) as file:
            header = _image_class(file).header_class.from_fileobj(file, check=False)
            shape, kind = header.get_data_shape(), header.get_data_dtype().kind
            affine = header.get_sform(coded=True)[0]
            affine = header.get_qform(coded=True)[0] if affine is None else affine
    except DAMAGE as error:
        raise InputError("E-NIFTI-06", modality=modality) from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or kind not in "iuf":
        raise InputError("E-NIFTI-07", modality=modality, num_axes=len(shape))
    if not 0 < min(shape) <= max(shape) <= LONGEST:
        raise InputError("E-NIFTI-10", modality=modality, longest=LONGEST, shape=shape)
    if affine is None:
        raise InputError("E-NIFTI-08", modality=modality)
    mended, off = _orthogonal(LPS @ affine, shape, modality)
    return mended, shape, "axes that were not at right angles were mended" if off > ROUNDING else ""


def _orthogonal(affine: np.ndarray, shape: tuple[int, ...], modality: str) -> tuple[np.ndarray, float]:
    """Returns the affine with its axes at right angles, and the largest change of a direction's component.

    Raises:
        InputError: the axes are no basis, or mending them would move a corner by half a voxel or more.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and spacing.min() > 0):
        raise InputError("E-NIFTI-09", modality=modality, off=np.inf)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    result = affine.copy()
    result[:3, :3] = left @ right * spacing
    half = (np.array(shape) - 1) / 2
    result[:3, 3] += (affine[:3, :3] - result[:3, :3]) @ half  # about the middle
    corners = np.array(np.meshgrid(*[(-one, one) for one in half])).reshape(3, -1)
    off = np.abs(np.linalg.solve(result[:3, :3], (affine[:3, :3] - result[:3, :3]) @ corners)).max()
    if not off < 0.5:
        raise InputError("E-NIFTI-09", modality=modality, off=off)
    return result, float(np.abs((affine - result)[:3, :3] / spacing).max())


def _directions(affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def _order(affine: np.ndarray, axis: str) -> list[tuple[int, int]]:
    """Returns (axis of the file, sign) for columns, rows and slices of the image in a plane."""
    directions = _directions(affine)
    slices = int(np.abs(directions[AXES.index(axis)]).argmax())
    left = [number for number in range(3) if number != slices]
    (column, column_sign), (row, row_sign) = IN_PLANE[axis]
    if np.abs(directions[column, left[1]]) > np.abs(directions[column, left[0]]):
        left.reverse()
    order = [
        (left[0], column_sign if directions[column, left[0]] > 0 else -column_sign),
        (left[1], row_sign if directions[row, left[1]] > 0 else -row_sign),
    ]
    vectors = [directions[:, number] * sign for number, sign in order]
    along_normal = float(np.cross(vectors[0], vectors[1]) @ directions[:, slices])
    return [*order, (slices, 1 if along_normal > 0 else -1)]


def _turned_affine(affine: np.ndarray, shape: tuple[int, ...], axis: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Returns the affine of (column, row, slice) in a plane, and the number of each."""
    order = _order(affine, axis)
    turned = affine.copy()
    for place, (number, sign) in enumerate(order):
        turned[:3, place] = affine[:3, number] * sign
        if sign < 0:
            turned[:3, 3] += affine[:3, number] * (shape[number] - 1)
    return turned, tuple(shape[number] for number, _ in order)


def _turned(array: np.ndarray, affine: np.ndarray, axis: str) -> np.ndarray:
    """Returns the voxels as (slices, rows, columns) of a plane."""
    order = _order(affine, axis)
    turned = array.transpose([number for number, _ in reversed(order)])
    return np.ascontiguousarray(turned[tuple(slice(None, None, sign) for _, sign in reversed(order))])


def _voxels(path: Path, modality: str) -> np.ndarray:
    """Returns the voxels in the order of the file's axes, float32, scaled by the header."""
    try:
        with opened(path) as file:
            image = _image_class(file).from_stream(file)
            array = np.array(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except DAMAGE as error:
        if isinstance(error, EOFError) or str(error).startswith("Expected "):  # gzip's and nibabel's words
            raise InputError("E-NIFTI-02", modality=modality) from error
        raise InputError("E-NIFTI-01", modality=modality) from error
    return array.reshape(array.shape[:3])


def _image_class(file: BinaryIO) -> type[Any]:
    """Returns NIfTI-1 or NIfTI-2 by the header's length, the first number in the file."""
    length = file.read(4)
    file.seek(0)
    for kind, size in ((nibabel.Nifti1Image, 348), (nibabel.Nifti2Image, 540)):
        if size in (int.from_bytes(length, "little"), int.from_bytes(length, "big")):
            return kind
    raise ImageFileError("no NIfTI header")
