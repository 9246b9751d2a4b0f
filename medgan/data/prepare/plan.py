"""Defines `fingerprint.json`, facts about the images, and `plan.json`, settings that a person may edit."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, ValidationError

from medgan.data.atomic_write import write_atomically
from medgan.data.plausibility import BOUNDS, Bounds
from medgan.data.prepare.pairing import Choice, Pair
from medgan.data.series import Series
from medgan.errors import InputError
from medgan.tasks import ARBITRARY_UNIT, Task, task_named

FINGERPRINT, PLAN = "fingerprint.json", "plan.json"


class MotionPlan(BaseModel, frozen=True, extra="forbid"):
    """Holds the strength of the simulated motion; see `medgan.data.prepare.motion`."""

    severity: NonNegativeFloat = Field(1.0, description="1: up to 10 degrees and 10 mm")
    seed: int = 0


class LowDosePlan(BaseModel, frozen=True, extra="forbid"):
    """Holds the dose of the simulated PET; see `medgan.data.prepare.low_dose`."""

    total_counts: PositiveFloat = Field(1e6, description="counts of a mean slice at full dose")
    dose_fraction: float = Field(0.1, gt=0, le=1)
    seed: int = 0


SIMULATIONS: dict[str, MotionPlan | LowDosePlan | None] = {
    "none": None,
    "motion": MotionPlan(),
    "low_dose": LowDosePlan(),
}


class Plan(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Holds the settings that, besides the images, decide the content of a data set."""

    task: str
    size: int = Field(ge=16, le=1024, description="rows and columns of a slice")
    spacing_mm: PositiveFloat = Field(description="distance between pixels")
    source_window: tuple[float, float] | None = Field(description="values for -1 and 1; null: each volume's own")
    target_window: tuple[float, float] | None = Field(description="likewise, of the target")
    simulation: MotionPlan | LowDosePlan | None = Field(description="settings; null: sources are given")
    source_match: str = Field("", description="text in the paths of source files; empty: modality decides")
    target_match: str = Field("", description="likewise, of target files")
    frames: Literal["same", "any"] = Field(
        "same", description="any: pair one study's images of two or no frames of reference"
    )
    reconstruction: Literal["soft", "sharp", "any"] = Field("soft", description="CT kernel that is preferred")
    axis: Literal["axial", "coronal", "sagittal", "any"] = Field("any", description="plane of the slices")
    irregular: Literal["refuse", "resample"] = Field("refuse", description="tilted slices, or of varying distance")
    patient_folder: int = Field(0, ge=0, description="level of the folder that names a NIfTI image's patient; 0: found")
    registration: Literal["none", "rigid"] = Field("none", description="of the source to the target, before resampling")
    least_overlap: float = Field(
        0.5, ge=0, le=1, description="overlap of the bodies below which a patient is set aside"
    )
    bounds: Bounds = Field(BOUNDS, description="plausible values; patients beyond them are set aside")
    validation_share: float = Field(1 / 6, ge=0, lt=1, description="share of validation patients")
    test_share: float = Field(1 / 3, ge=0, lt=1, description="share of test patients")
    most_broken: float = Field(0.5, ge=0, le=1, description="share of broken patients above which prepare fails")

    @property
    def choice(self) -> Choice:
        """Returns which series may be a patient's source and target."""
        return Choice(**{name: getattr(self, name) for name in Choice.__dataclass_fields__})

    def windowed(self) -> Task:
        """Returns the task with the plan's windows."""
        task = task_named(self.task)
        return replace(
            task,
            source=replace(task.source, window=self.source_window),
            target=replace(task.target, window=self.target_window),
        )


def facts(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """Returns the number of patients and, for each side, the smallest, median and largest of its headers' measures."""
    sources = [one.source for one in pairs.values() if one.source]
    targets = [one.target for one in pairs.values()]
    return {"patients": len(pairs), "source": _measures(sources), "target": _measures(targets)}


def provisional_plan(settings: Mapping[str, Any]) -> Plan:
    """Returns a plan for the time before images are paired: its windows and grid mean nothing.

    Raises:
        InputError: the value of a field is not valid.
    """
    tree: dict[str, Any] = {
        "task": "pet2ct", "size": 16, "spacing_mm": 1.0, "source_window": (0.0, 1.0), "target_window": (0.0, 1.0),
        "simulation": None, "bounds": BOUNDS.model_dump(),
    }  # fmt: skip
    names = {*Choice.__dataclass_fields__, "bounds", "patient_folder"}
    known = {path: value for path, value in settings.items() if path.split(".")[0] in names}
    return validated_plan(_with(tree, known), "plan")


def first_plan(
    pairs: Mapping[str, Pair], task: Task, *, size: int, settings: Mapping[str, Any], patient_folder: int = 0
) -> Plan:
    """Returns a new plan for these images; pixels are as fine as the targets', but the largest target fits.

    The slices' plane is that of most targets, the axial one where as many are in another.

    Args:
        size: rows and columns of a slice.
        settings: other fields of the plan by name; fields of a section like `simulation.severity`.
        patient_folder: level of the folder that names a NIfTI image's patient.

    Raises:
        InputError: a field is unknown, or its value is not valid.
    """
    simulation = SIMULATIONS[task.simulation] if any(one.source is None for one in pairs.values()) else None
    tree: dict[str, Any] = {
        "task": task.name,
        "size": size,
        "spacing_mm": _spacing_with_room(pairs, size),
        "source_window": task.source.window,
        "target_window": task.target.window,
        "simulation": simulation.model_dump() if simulation else None,
        "axis": _axis_of_most(pairs),
        "patient_folder": patient_folder,
        "bounds": BOUNDS.model_dump(),
    }
    if taken := {"task", "size"} & settings.keys():
        raise InputError("E-PLAN-01", taken=", ".join(sorted(taken)))
    return validated_plan(_with(tree, settings), "plan")


def _with(tree: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree with other values at dotted paths."""
    for path, value in settings.items():
        *sections, name = path.split(".")
        place: Any = tree
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise InputError("E-PLAN-02", path=path, tree=", ".join(tree))
        place[name] = value
    return tree


def read_plan(folder: Path) -> Plan | None:
    """Returns the plan in a folder, which a person may have edited, or None where the folder has no plan.

    Raises:
        InputError: the file is no JSON, or the value of a field is not valid.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError("E-PLAN-03", path=path, lineno=error.lineno, msg=error.msg) from None
    except UnicodeDecodeError:
        raise InputError("E-PLAN-04", path=path) from None
    return validated_plan(tree, str(path))


def validated_plan(tree: Any, where: str) -> Plan:
    """Returns a plan made of plain values; raises InputError that names the field where a value is not valid."""
    try:
        plan = Plan.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        loc = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise InputError("E-PLAN-05", where=where, loc=loc, known=", ".join(Plan.model_fields)) from None
        raise InputError("E-PLAN-06", where=where, loc=loc, msg=first["msg"], given=first["input"]) from None
    task = task_named(plan.task)
    for name, image in (("source_window", task.source), ("target_window", task.target)):
        window = getattr(plan, name)
        if window is None and image.unit != ARBITRARY_UNIT:
            raise InputError("E-PLAN-07", where=where, name=name, unit=image.unit, arbitrary_unit=ARBITRARY_UNIT)
        if window is not None and not window[0] < window[1]:
            raise InputError("E-PLAN-08", where=where, name=name, window=window)
    if plan.validation_share + plan.test_share >= 1:
        raise InputError("E-PLAN-09", where=where, validation_share=plan.validation_share, test_share=plan.test_share)
    return plan


def fits(plan: Plan, pairs: Mapping[str, Pair], task: Task, where: str) -> None:
    """Raises InputError where simulated sources have no settings in the plan, or given sources have settings."""
    wanted = SIMULATIONS[task.simulation] if any(one.source is None for one in pairs.values()) else None
    if type(plan.simulation) is not type(wanted):
        named = "null, because source images are given" if wanted is None else f"settings of {task.simulation}"
        raise InputError("E-PLAN-10", where=where, named=named, simulation=plan.simulation)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file that a person can read and edit."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _spacing_with_room(pairs: Mapping[str, Pair], size: int) -> float:
    """Returns the median pixel spacing of the targets, or what the largest needs to fit, rounded up to 0.01 mm."""
    planes = [one.target.planes[0] for one in pairs.values()]
    native = float(np.median([plane.pixel_spacing for plane in planes]))
    largest = max(
        length * step for plane in planes for length, step in zip(plane.size, plane.pixel_spacing, strict=True)
    )
    return math.ceil(round(max(native, largest / size) * 100, 6)) / 100


def _axis_of_most(pairs: Mapping[str, Pair]) -> str:
    """Returns the plane of most targets' slices; of as many, the axial one."""
    axes = [one.target.axis for one in pairs.values()]
    return max(sorted(set(axes)), key=axes.count)


def _measures(series: Sequence[Series]) -> dict[str, list[float]] | str:
    if not series:
        return "simulated"
    return {
        "pixel_spacing_mm": _spread([step for one in series for step in one.planes[0].pixel_spacing]),
        "slice_spacing_mm": _spread([float(np.linalg.norm(one.affine[:3, 2])) for one in series]),
        "rows_and_columns": _spread([length for one in series for length in one.planes[0].size]),
        "slices": _spread([len(one.planes) for one in series]),
    }


def _spread(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in (min(values), np.median(values), max(values))]
