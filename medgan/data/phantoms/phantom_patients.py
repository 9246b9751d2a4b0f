"""Writes made-up patients, to try everything without a real one: CT and PET, MR, or PET alone."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from medgan.data.phantoms.anatomy import ANATOMIES, NAMES, TISSUES, draw
from medgan.data.phantoms.phantom_files import write_phantom
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.processes.crew import HERE, Crew, limit_of
from medgan.tasks import task_named

FIELD_MM, STEP_MM = 352.0, 4.0
PET_STEP_MM = 4.25
PET_BLUR_MM = 3.0  # standard deviation of the scanner's point spread: 7 mm at half maximum
BODY_PARTS = {"head": "HEAD", "thorax": "CHEST", "pelvis": "PELVIS", "limb": "LEG"}
COMPLETE = "phantoms.json"
LONGEST_S = 3600.0  # for one patient
VOXELS_WORTH_A_PROCESS = 16_000_000  # making them takes much longer than the start of a process


class Scanner(NamedTuple):
    """Describes the images of a PET scanner.

    Attributes:
        size: pixels along a side.
        noise: standard deviation at 1 SUV; it grows with the root of the uptake.
        texture: standard deviation of the uptake inside a tissue, as a share of it.
    """

    pixel_mm: float
    size: int
    noise: float
    texture: float


COARSE = Scanner(pixel_mm=6.0, size=60, noise=0.12, texture=0.0)
FULL_DOSE = Scanner(pixel_mm=4.0, size=88, noise=0.04, texture=0.12)


class Anatomy(NamedTuple):
    """Holds the tissues of one patient on the grid of the CT or MR.

    Attributes:
        labels: (slices, rows, columns), index into `NAMES`.
    """

    labels: np.ndarray
    affine: np.ndarray
    random: np.random.Generator

    def painted(self, quantity: str) -> np.ndarray:
        """Returns a field of `Tissue` at every voxel, float32 (slices, rows, columns)."""
        return np.array([getattr(TISSUES[name], quantity) for name in NAMES], np.float32)[self.labels]


def write_phantoms(
    folder: Path,
    *,
    task: str = "pet2ct",
    patients: int = 12,
    slices: int = 20,
    matrix: int = 128,
    seed: int = 0,
    processes: int | None = None,
) -> Path:
    """Writes made-up patients: heads, thoraxes, pelves and thighs in turn, the same ones for every task.

    The same arguments give the same bytes. If the folder holds these phantoms already, nothing is done.

    Args:
        folder: output folder, which is returned; it gets its name once it is complete.
        task: task of the data: "pet2ct" makes a CT and a PET series a patient, "mr_motion" a T1-weighted MR series,
            "pet_denoise" a PET series of full dose.
        slices: number of slices of the CT or MR, 4 mm apart; a PET has its own, 4.25 mm apart.
        matrix: pixels of the CT or MR along a side of 352 mm; a PET has its own, but is computed from these.
        processes: number of patients made at once; by default one a CPU core if there is enough to do.

    Raises:
        InputError: there is no such task, a count is too small, or the folder holds something else.
    """
    for name, value, least in (("patients", patients, 1), ("slices", slices, 2), ("matrix", matrix, 16)):
        if value < least:
            raise InputError("E-PHANTOM-01", name=name, least=least, value=value)
    made = {"task": task_named(task).name, "patients": patients, "slices": slices, "matrix": matrix, "seed": seed}
    if folder.is_dir() and any(folder.iterdir()):
        if _record(folder) == made:
            return folder
        raise InputError("E-PHANTOM-02", folder=folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    worth = max(1, patients * slices * matrix**2 // VOXELS_WORTH_A_PROCESS)
    write = partial(_write_patient, part, task=task, slices=slices, matrix=matrix, seed=seed)
    try:
        _write_all(write, patients, min(processes or os.cpu_count() or 1, worth))
        (part / COMPLETE).write_text(json.dumps(made))
        try:
            os.replace(part, folder)
        except OSError:
            if _record(folder) != made:  # another process was quicker
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_all(write: Callable[[int], None], patients: int, processes: int) -> None:
    with Crew(processes, limit_of(processes, LONGEST_S)) if processes > 1 else nullcontext(HERE) as callers:
        for _ in callers.each(write, range(1, patients + 1)):
            pass


def phantom_volumes(number: int, *, slices: int, matrix: int, seed: int) -> tuple[Volume, Volume]:
    """Returns the CT (HU) and PET (SUV) of one phantom, before rounding to DICOM pixels."""
    anatomy = _anatomy(number, slices=slices, matrix=matrix, seed=seed)
    hu, random = anatomy.painted("hu"), anatomy.random
    texture = ndimage.gaussian_filter(60 * random.standard_normal(hu.shape, np.float32), (1, 2, 2))
    hu = ndimage.gaussian_filter(hu, (0, 0.5, 0.5)) + texture + 9 * random.standard_normal(hu.shape, np.float32)
    return Volume(hu.clip(-1000, 1500), anatomy.affine, "", "HU"), _pet(anatomy, COARSE)


def mr_phantom(number: int, *, slices: int, matrix: int, seed: int) -> Volume:
    """Returns the T1-weighted MR image of one phantom, with texture, a smooth bias of the coil, and Rician noise."""
    anatomy = _anatomy(number, slices=slices, matrix=matrix, seed=seed)
    signal, random = anatomy.painted("mr"), anatomy.random
    signal *= 1 + _smooth_noise(anatomy, 4.0, 0.06)
    signal = ndimage.gaussian_filter(signal, (0, 0.5, 0.5)) * np.exp(_smooth_noise(anatomy, 70.0, 0.15))
    real, imaginary = (12 * random.standard_normal(signal.shape, np.float32) for _ in range(2))
    return Volume(np.hypot(signal + real, imaginary), anatomy.affine, "", "a.u.")


def pet_phantom(number: int, *, slices: int, matrix: int, seed: int) -> Volume:
    """Returns the PET (SUV) of one phantom at full dose: finer and less noisy than for "pet2ct", with texture."""
    return _pet(_anatomy(number, slices=slices, matrix=matrix, seed=seed), FULL_DOSE)


def _record(folder: Path) -> Mapping[str, Any] | None:
    """Returns the arguments that made the phantoms in a folder; records without a task are old ones of "pet2ct"."""
    try:
        return {"task": "pet2ct"} | json.loads((folder / COMPLETE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _write_patient(folder: Path, number: int, *, task: str, slices: int, matrix: int, seed: int) -> None:
    size: dict[str, int] = {"slices": slices, "matrix": matrix, "seed": seed}
    place = ["medgan phantom", str(number), *map(str, size.values())]
    if task == "pet2ct":
        volumes: tuple[Volume, ...] = phantom_volumes(number, **size)
    else:
        place.append(task)
        volumes = (mr_phantom(number, **size),) if task == "mr_motion" else (pet_phantom(number, **size),)
    body_part = BODY_PARTS[_kind(number)]
    write_phantom(folder / f"PHANTOM-{number:04d}", number, volumes, place=place, body_part=body_part)


def _anatomy(number: int, *, slices: int, matrix: int, seed: int) -> Anatomy:
    random = np.random.default_rng([seed, number])
    affine = _centered_affine(FIELD_MM / matrix, STEP_MM, (slices, matrix, matrix))
    return Anatomy(draw(_kind(number), _points(affine, (slices, matrix, matrix)), random), affine, random)


def _kind(number: int) -> str:
    return list(ANATOMIES)[(number - 1) % len(ANATOMIES)]


def _pet(anatomy: Anatomy, scanner: Scanner) -> Volume:
    """Returns the uptake as a scanner sees it: on its own grid, blurred and noisy."""
    suv, random = anatomy.painted("suv"), anatomy.random
    if scanner.texture:
        suv *= 1 + _smooth_noise(anatomy, 5.0, scanner.texture)
    num = int(np.floor((len(suv) - 1) * STEP_MM / PET_STEP_MM)) + 1
    affine = _centered_affine(scanner.pixel_mm, PET_STEP_MM, (num, scanner.size, scanner.size))
    affine[:3, 3] += (1.7, -2.3, 0.37)
    origin, spacing = anatomy.affine[:3, 3], np.diag(anatomy.affine)[:3]
    blurred = ndimage.gaussian_filter(suv, PET_BLUR_MM / spacing[::-1])
    x, y, z = _points(affine, (num, scanner.size, scanner.size))
    places = [(z - origin[2]) / spacing[2], (y - origin[1]) / spacing[1], (x - origin[0]) / spacing[0]]
    seen = ndimage.map_coordinates(blurred, places, order=1, mode="nearest")
    noise = ndimage.gaussian_filter(random.normal(0, 1, seen.shape), (0, 0.6, 0.6))
    noise *= 0.01 + scanner.noise * np.sqrt(seen)
    return Volume((seen + noise).clip(0).astype(np.float32), affine, "", "SUV")


def _smooth_noise(anatomy: Anatomy, width_mm: float, deviation: float) -> np.ndarray:
    """Returns a spline through random values of some `deviation`, `width_mm` apart, float32 (slices, rows, columns)."""
    shape = np.array(anatomy.labels.shape)
    knots = np.ceil(shape * np.diag(anatomy.affine)[2::-1] / width_mm).astype(int) + 1
    return ndimage.zoom(deviation * anatomy.random.standard_normal(knots, np.float32), shape / knots, order=3)


def _centered_affine(pixel_mm: float, step_mm: float, shape: tuple[int, int, int]) -> np.ndarray:
    affine = np.diag([pixel_mm, pixel_mm, step_mm, 1.0])
    affine[:3, 3] = [-(count - 1) / 2 * step for count, step in zip(shape[::-1], np.diag(affine)[:3], strict=True)]
    return affine


def _points(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns x, y, z in mm of every voxel of an axial grid, each of the given shape."""
    axes = [affine[axis, 3] + affine[axis, axis] * np.arange(count) for axis, count in enumerate(shape[::-1])]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return x, y, z
