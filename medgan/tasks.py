"""What each task translates: modalities, units, intensity windows and the metrics that name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medgan.errors import InputError

ARBITRARY_UNIT = "a.u."
"""The unit of images without a physical one, such as MR."""
CT_TISSUES = {"air": (-32768.0, -300.0), "soft": (-300.0, 150.0), "bone": (150.0, 32768.0)}
"""HU, the lower end included; in the body mask, air is that of lungs, bowel and sinuses.

The outer ends are int16's, not infinite: `dataset.json` keeps the task, and JSON knows no infinity."""


@dataclass(frozen=True)
class Image:
    """One side of a task.

    Attributes:
        modality: DICOM Modality (0008,0060).
        unit: physical unit of the voxels.
        window: (low, high) in that unit, mapped linearly to [-1, 1] and clipped.
        background: the value of nothing, in that unit: what padding is filled with.
        tissues: name -> [low, high) in that unit, whose errors are also told apart; by the target's own value.
    """

    modality: str
    unit: str
    window: tuple[float, float]
    background: float
    tissues: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A translation from `source` to `target`."""

    name: str
    source: Image
    target: Image


TASKS = {
    "pet2ct": Task(
        name="pet2ct",
        source=Image(modality="PT", unit="SUV", window=(0.0, 10.0), background=0.0),
        target=Image(modality="CT", unit="HU", window=(-1000.0, 2000.0), background=-1000.0, tissues=CT_TISSUES),
    ),
}


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        InputError: there is none.
    """
    if name not in TASKS:
        raise InputError(f"task: expected one of {', '.join(sorted(TASKS))}; got {name!r}")
    return TASKS[name]
