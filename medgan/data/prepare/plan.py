"""`fingerprint.json`, facts about the images found, and `plan.json`, what is made of them, open to edits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, ValidationError

from medgan.data.atomic_write import write_atomically
from medgan.data.prepare.pairing import Pair
from medgan.errors import InputError
from medgan.tasks import ARBITRARY_UNIT, Task, task_named

FINGERPRINT, PLAN = "fingerprint.json", "plan.json"


class MotionPlan(BaseModel, frozen=True, extra="forbid"):
    """How strong the simulated motion is; see `medgan.data.prepare.motion`."""

    severity: NonNegativeFloat = Field(1.0, description="1: up to 10 degrees and 10 mm")
    seed: int = 0


class LowDosePlan(BaseModel, frozen=True, extra="forbid"):
    """How low the simulated dose is; see `medgan.data.prepare.low_dose`."""

    total_counts: PositiveFloat = Field(1e6, description="of a mean slice at full dose")
    dose_fraction: float = Field(0.1, gt=0, le=1)
    seed: int = 0


SIMULATIONS: dict[str, MotionPlan | LowDosePlan | None] = {
    "none": None,
    "motion": MotionPlan(),
    "low_dose": LowDosePlan(),
}


class Plan(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What decides the content of a data set, besides the images."""

    task: str
    size: int = Field(ge=16, le=1024, description="rows and columns of a slice")
    spacing_mm: PositiveFloat = Field(description="distance of pixels")
    source_window: tuple[float, float] | None = Field(description="what becomes -1 and 1; null: each volume's own")
    target_window: tuple[float, float] | None = Field(description="the same")
    simulation: MotionPlan | LowDosePlan | None = Field(description="of sources from targets; null: sources are given")
    source_match: str = Field("", description="text in the path of every source's files; empty: told by modality")
    target_match: str = Field("", description="the same")
    registration: Literal["none", "rigid"] = Field("none", description="of the source to the target, before all else")
    least_overlap: float = Field(0.0, ge=0, le=1, description="Dice of the bodies under which a patient is set aside")
    validation_share: float = Field(1 / 6, ge=0, lt=1, description="of the patients")
    test_share: float = Field(1 / 3, ge=0, lt=1, description="of the patients")
    most_broken: float = Field(0.5, ge=0, le=1, description="share of broken patients above which nothing is made")

    def windowed(self) -> Task:
        """The task, with the plan's windows."""
        task = task_named(self.task)
        return replace(
            task,
            source=replace(task.source, window=self.source_window),
            target=replace(task.target, window=self.target_window),
        )


def facts(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """What the headers say: patients, and for each side the smallest, middle and largest of its measures."""
    sources = [one.source for one in pairs.values() if one.source]
    found: dict[str, Any] = {"patients": len(pairs)}
    for side, ones in (("source", sources), ("target", [one.target for one in pairs.values()])):
        measures: dict[str, list[float]] = {
            "pixel_spacing_mm": [step for one in ones for step in one.planes[0].pixel_spacing],
            "slice_spacing_mm": [float(np.linalg.norm(one.affine[:3, 2])) for one in ones],
            "rows_and_columns": [length for one in ones for length in one.planes[0].size],
            "slices": [len(one.planes) for one in ones],
        }
        found[side] = {name: _spread(values) for name, values in measures.items()} if ones else "simulated"
    return found


def first_plan(pairs: Mapping[str, Pair], task: Task, *, size: int, settings: Mapping[str, Any]) -> Plan:
    """The plan for these images; pixels as fine as the targets are, but with room for the largest.

    Args:
        pairs: what was found.
        task: what is translated into what.
        size: rows and columns.
        settings: other fields of the plan, by name; those of the simulation as `simulation.severity`.

    Raises:
        InputError: a field is unknown, or refuses its value.
    """
    simulation = SIMULATIONS[task.simulation] if any(one.source is None for one in pairs.values()) else None
    tree: dict[str, Any] = {
        "task": task.name,
        "size": size,
        "spacing_mm": _spacing_with_room(pairs, size),
        "source_window": task.source.window,
        "target_window": task.target.window,
        "simulation": simulation.model_dump() if simulation else None,
    }
    if taken := {"task", "size"} & settings.keys():
        raise InputError("E-PLAN-01", taken=", ".join(sorted(taken)))
    for path, value in settings.items():
        section, _, name = path.partition(".")
        if not name:
            tree[section] = value
        elif isinstance(tree.get(section), dict):
            tree[section][name] = value
        else:
            raise InputError("E-PLAN-02", path=path, tree=", ".join(tree))
    return validated_plan(tree, "plan")


def read_plan(folder: Path) -> Plan | None:
    """The plan in a folder, perhaps edited by a person; None where there is none.

    Raises:
        InputError: it is no JSON, or a field refuses its value.
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
    """A plan from plain values; raises InputError that names the field."""
    try:
        plan = Plan.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            known = ", ".join(Plan.model_fields)
            raise InputError("E-PLAN-05", where=where, loc=".".join(map(str, first["loc"])), known=known) from None
        raise InputError(
            "E-PLAN-06", where=where, loc=".".join(map(str, first["loc"])), msg=first["msg"], given=first["input"]
        ) from None
    task = task_named(plan.task)
    for name, image in (("source_window", task.source), ("target_window", task.target)):
        window = getattr(plan, name)
        if window is None and image.unit != ARBITRARY_UNIT:
            raise InputError("E-PLAN-07", where=where, name=name, unit=image.unit, arbitrary_unit=ARBITRARY_UNIT)
        if window is not None and not window[0] < window[1]:
            raise InputError("E-PLAN-08", where=where, name=name, window=window)
    if plan.validation_share + plan.test_share >= 1:
        raise InputError("E-PLAN-09", where=where)
    return plan


def fits(plan: Plan, pairs: Mapping[str, Pair], task: Task, where: str) -> None:
    """Refuses a plan that says other things of the sources than the images do.

    Raises:
        InputError: simulated sources without settings for them, or settings where sources are given.
    """
    wanted = SIMULATIONS[task.simulation] if any(one.source is None for one in pairs.values()) else None
    if type(plan.simulation) is not type(wanted):
        named = "null, for sources are given" if wanted is None else f"settings of {task.simulation}"
        raise InputError("E-PLAN-10", where=where, named=named, simulation=plan.simulation)


def write_json(path: Path, content: Any) -> None:
    """A file a person can read and edit."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _spacing_with_room(pairs: Mapping[str, Pair], size: int) -> float:
    """The median pixel spacing of the targets, or what the largest needs to fit, rounded up to 0.01 mm."""
    planes = [one.target.planes[0] for one in pairs.values()]
    native = float(np.median([plane.pixel_spacing for plane in planes]))
    largest = max(
        length * step for plane in planes for length, step in zip(plane.size, plane.pixel_spacing, strict=True)
    )
    return math.ceil(round(max(native, largest / size) * 100, 6)) / 100


def _spread(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in (min(values), np.median(values), max(values))]
