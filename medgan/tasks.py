"""Defines what each task translates: modalities, units, intensity windows and tissues."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from medgan.errors import InputError

ARBITRARY_UNIT = "a.u."
"""Stands for the unit of images without a physical one, such as MR."""
CT_TISSUES = {"air": (-32768.0, -300.0), "soft": (-300.0, 150.0), "bone": (150.0, 32768.0)}
"""Gives ranges in HU, the lower end included; in the body mask, air is that of lungs, bowel and sinuses.

The outer ends are those of int16, not infinite, as `dataset.json` keeps the task and JSON has no infinity."""


@dataclass(frozen=True)
class Image:
    """Describes one side of a task.

    Attributes:
        modality: DICOM Modality (0008,0060).
        unit: physical unit of the voxels.
        window: (low, high) in that unit, mapped linearly to [-1, 1] and clipped; None: each volume has its own, from
            its 0.5 to its 99.5 percentile.
        background: value of the background and of padding, in that unit.
        body_above: brighter voxels are body, in that unit; a share of the window where each volume has its own.
        tissues: name -> [low, high) of the target's value in that unit; each tissue has metrics of its own.
    """

    modality: str
    unit: str
    window: tuple[float, float] | None
    background: float
    body_above: float
    tissues: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Describes a translation from `source` to `target`.

    Attributes:
        simulation: how sources are made from targets if no sources are given: "motion", "low_dose" or "none".
    """

    name: str
    source: Image
    target: Image
    simulation: str = "none"

    @property
    def floor(self) -> str:
        """Returns the baseline without a network: the source as it is, or the mean image if modalities differ."""
        return "source as it is" if self.source.modality == self.target.modality else "mean image"

    @property
    def quick_space(self) -> str:
        """Returns the name of the search space for phantoms, used if no space is named."""
        return "quick" if self.floor == "mean image" else "quick_same"


PET = Image(modality="PT", unit="SUV", window=(0.0, 10.0), background=0.0, body_above=0.1)
FULL_PET = replace(PET, window=(0.0, 20.0))
CT = Image(
    modality="CT", unit="HU", window=(-1000.0, 2000.0), background=-1000.0, body_above=-300.0, tissues=CT_TISSUES
)
MR = Image(modality="MR", unit=ARBITRARY_UNIT, window=None, background=0.0, body_above=0.1)

TASKS = {
    task.name: task
    for task in (
        Task(name="pet2ct", source=PET, target=CT),
        Task(name="mr_motion", source=MR, target=MR, simulation="motion"),
        Task(name="pet_denoise", source=FULL_PET, target=FULL_PET, simulation="low_dose"),
    )
}


def task_named(name: str) -> Task:
    """Returns the task of that name; raises InputError if there is none."""
    if name not in TASKS:
        raise InputError("E-TASK-01", tasks=", ".join(sorted(TASKS)), name=name)
    return TASKS[name]
