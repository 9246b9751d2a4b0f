"""Reads prepared slices for training: a torch data set over memory maps, and an endless stream of batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from medgan.data.intensity import to_network
from medgan.data.manifest import STATES, Manifest, Patient, read_manifest
from medgan.data.prepare.split import ROLES
from medgan.errors import InputError
from medgan.tasks import Task


class PreparedDataset:
    """Describes a prepared data set on disk; opening it reads only `dataset.json`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, place: Path) -> Self:
        """Opens a data set's folder, or the file of one of its `states`; raises InputError if it is no data set."""
        return cls(place.parent.parent if place.suffix == ".json" else place, read_manifest(place))

    @property
    def state(self) -> Path:
        """Returns the file of this state, which jobs give to workers: it stays as it is when the data set grows."""
        return self.folder / STATES / f"{self.digest}.json"

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of the content."""
        return self.manifest.digest

    @property
    def task(self) -> Task:
        """Returns the task, with the intensity windows that the data set was made for."""
        return self.manifest.task

    def slices(self, role: str, *, given: Literal["source", "target"] = "source") -> Slices:
        """Returns the slices of all patients of a role.

        Args:
            role: "train", "validation" or "test".
            given: image that a network gets as its input; "target" to learn features of the target.
        """
        patients = [patient for patient in self.manifest.patients if patient.role == role]
        if not patients:
            counts = ", ".join(f"{sum(one.role == name for one in self.manifest.patients)} {name}" for name in ROLES)
            raise InputError("E-DATASET-01", task_name=self.manifest.task.name, role=role, counts=counts)
        return Slices(self.folder, patients, self.task, given=given)


class Slices(Dataset):
    """Holds pairs of slices, (source, target), each float32 (1, H, W) in [-1, 1].

    Memory maps are opened on first use and not pickled, so that a data loader's workers get a small object.

    Attributes:
        patients: the patient hash of each slice.
        slice_numbers: position of each slice in its target series, from 0.
        target_window: (low, high) in the target's unit, which become -1 and 1; (0, 1) if each volume has its own.
    """

    def __init__(
        self, folder: Path, patients: list[Patient], task: Task, *, given: Literal["source", "target"] = "source"
    ) -> None:
        self.folder = folder
        self.task = task
        self.given = given
        self.target_window = task.target.window or (0.0, 1.0)
        self.patients = [patient.hash for patient in patients for _ in patient.slice_numbers]
        self.slice_numbers = [number for patient in patients for number in patient.slice_numbers]
        self._places = [(patient, row) for patient in patients for row in range(patient.slices)]
        self._maps: dict[tuple[str, str], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        patient, row = self._places[index]
        target = torch.from_numpy(to_network(self.target(index), patient.target_window))[None]
        if self.given == "target":
            return target, target
        source = patient.source.physical(self._map(patient, "source")[row])
        return torch.from_numpy(to_network(source, patient.source_window))[None], target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def spread(self, count: int) -> Self:
        """Returns `count` of these slices, spread evenly over them, or all if they are fewer."""
        indices = [len(self) * (2 * place + 1) // (2 * count) for place in range(count)]
        chosen = indices if count < len(self) else range(len(self))
        few = copy.copy(self)
        for name in ("patients", "slice_numbers", "_places"):
            setattr(few, name, [getattr(self, name)[index] for index in chosen])
        return few

    def mask(self, index: int) -> torch.Tensor:
        """Returns the mask of the body in the target of one slice, bool (1, H, W)."""
        patient, row = self._places[index]
        return torch.from_numpy(np.array(self._map(patient, "mask")[row]))[None]

    def target(self, index: int) -> np.ndarray:
        """Returns the target of one slice in its physical unit, not clipped, float32 (H, W)."""
        patient, row = self._places[index]
        return patient.target.physical(self._map(patient, "target")[row])

    def _map(self, patient: Patient, name: str) -> np.ndarray:
        key = (patient.folder, name)
        if key not in self._maps:
            self._maps[key] = np.load(self.folder / patient.folder / f"{name}.npy", mmap_mode="r")
        return self._maps[key]


class Unpaired(Dataset):
    """Pairs sources with the targets of other slices, drawn once, for methods that never see a true pair."""

    def __init__(self, slices: Slices, *, seed: int) -> None:
        self.slices = slices
        self.order = np.random.default_rng([seed, len(slices)]).permutation(len(slices))

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.slices[index][0], self.slices[int(self.order[index])][1]


class Batches(Sampler[list[int]]):
    """Yields batches of slice indices without end, the same for every number of ranks and after any restart.

    Epoch k's order is drawn from (seed, k) alone; batch n of the whole run is a fixed set of indices, and rank r
    takes every size-th of them from the r-th on. An epoch's incomplete tail is dropped.

    Args:
        batch_size: size of a batch of all ranks together.
        rank: number of this process, from 0.
        size: number of processes.
        start: number of the first batch, above 0 if a run continues.
    """

    def __init__(
        self, num_slices: int, batch_size: int, *, seed: int, rank: int = 0, size: int = 1, start: int = 0
    ) -> None:
        if batch_size < 1 or batch_size % size:
            raise InputError("E-DATASET-02", size=size, batch_size=batch_size)
        if batch_size > num_slices:
            raise InputError("E-DATASET-03", num_slices=num_slices, batch_size=batch_size)
        self.num_slices, self.batch_size = num_slices, batch_size
        self.seed, self.rank, self.size, self.start = seed, rank, size, start

    @property
    def batches_per_epoch(self) -> int:
        """Returns the number of complete batches in one pass over the slices."""
        return self.num_slices // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.start, self.batches_per_epoch)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_slices)
            for batch in range(first, self.batches_per_epoch):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield chosen[self.rank :: self.size].tolist()
            epoch, first = epoch + 1, 0


def mean_target(slices: Slices) -> torch.Tensor:
    """Returns the mean of all targets, float32 (H, W) in [-1, 1]; a network must be better than this image."""
    total = sum(target[0].double() for _, target in (slices[index] for index in range(len(slices))))
    return (total / len(slices)).float()  # type: ignore[union-attr]
