"""Holds the results of a comparison of methods; computes means, spreads and paired tests against one method."""

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgan.errors import InputError
from medgan.metrics.validation_metrics import Patients, merit
from medgan.registry.gates import DECIMALS, EXACT, RESAMPLES, sign_flip


@dataclass(frozen=True)
class Run:
    """Describes one training of one method with one seed.

    Attributes:
        patients: test patient (hash) -> metric -> mean over its slices; None where the training failed.
        failure: what failed and why, for a person, such as "diverged: the generator's output is not finite".
        slices_seen: training slices that updated the generator until the end.
        minutes: duration of training and validation.
    """

    seed: int
    patients: Patients | None
    failure: str = ""
    slices_seen: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class MethodResults:
    """Holds the results of one method, a row of a table.

    Attributes:
        runs: one run for each seed; a single one for a method without training.
        trained: false for the mean image, the source as it is, and every other method without a seed.
    """

    name: str
    runs: tuple[Run, ...]
    trained: bool = True

    @property
    def measured(self) -> list[Run]:
        """Returns the runs that did not fail."""
        return [run for run in self.runs if run.patients is not None]

    @property
    def failures(self) -> str:
        """Returns each reason with its number of failed runs, such as "1 diverged: ..."; empty if no run failed."""
        reasons = Counter(run.failure or "failed" for run in self.runs if run.patients is None)
        return "; ".join(f"{count} {reason.rstrip('.')}" for reason, count in reasons.items())


@dataclass(frozen=True)
class Results:
    """Holds the results of methods that were measured on the same test patients.

    Attributes:
        title: title of the comparison, without paths and identifiers.
        facts: name -> text: data, split, settings, budget, seeds, features, code version, device.
        tables: title of a table -> its methods in order; a method may be in several tables.
        reference: the method that the others are tested against.

    Raises:
        InputError: a table names an unknown method, or runs were measured on different patients.
    """

    title: str
    facts: Mapping[str, str]
    tables: Mapping[str, tuple[str, ...]]
    methods: Mapping[str, MethodResults]
    reference: str = "medgan"

    def __post_init__(self) -> None:
        for table, names in self.tables.items():
            for name in names:
                if name not in self.methods:
                    raise InputError("E-REPORT-01", table=table, methods=", ".join(self.methods), name=name)
        first = next((run.patients for method in self.methods.values() for run in method.measured), None)
        for method in self.methods.values():
            for run in method.measured:
                if run.patients is not None and first is not None and run.patients.keys() != first.keys():
                    raise InputError(
                        "E-REPORT-02",
                        method_name=method.name,
                        seed=run.seed,
                        num_first=len(first),
                        num_patients=len(run.patients),
                        num_patients_2=len(run.patients.keys() & first.keys()),
                    )

    def rows(self, table: str) -> list[MethodResults]:
        """Returns the methods of a table, in order."""
        return [self.methods[name] for name in self.tables[table]]

    def metrics(self, table: str) -> list[str]:
        """Returns every metric that was measured for a method of the table, in the order of measuring."""
        runs = [run for method in self.rows(table) for run in method.measured]
        return list(dict.fromkeys(name for run in runs for values in (run.patients or {}).values() for name in values))


class Score(NamedTuple):
    """Holds a method's result in one metric: the mean over patients of the mean over seeds, and standard deviations.

    `over_seeds` is the sample standard deviation of the seeds' means over patients, `over_patients` that of the
    patients' means over seeds; each is None if it has one value only.
    """

    mean: float
    over_seeds: float | None
    over_patients: float | None


class Difference(NamedTuple):
    """Compares a method with the reference: two-sided p, and p adjusted for the rows of the table (Holm)."""

    p: float
    adjusted: float
    patients: int


def score(method: MethodResults, metric: str) -> Score | None:
    """Returns a method's result in a metric, None if no run has it; a bias keeps its sign."""
    values = _by_patient(method, metric)
    if not values:
        return None
    means = [statistics.fmean(of_seeds) for of_seeds in values.values()]
    by_seed = [
        statistics.fmean(one[metric] for one in run.patients.values() if metric in one)
        for run in method.measured
        if run.patients and any(metric in one for one in run.patients.values())
    ]
    return Score(statistics.fmean(means), _deviation(by_seed), _deviation(means))


def goodness(method: MethodResults, metric: str) -> dict[str, float]:
    """Returns patient -> mean over the seeds, signed so that more is better; uses the absolute values of a bias."""
    return {
        patient: statistics.fmean(merit(metric, value) for value in values)
        for patient, values in _by_patient(method, metric).items()
    }


def differences(results: Results, table: str, metric: str) -> dict[str, Difference]:
    """Tests every other measured row of a table against the reference: exact paired sign-flip test over the patients.

    The result is empty if the reference is not in the table or was not measured.
    """
    if results.reference not in results.tables[table]:
        return {}
    ours = goodness(results.methods[results.reference], metric)
    found, patients = {}, {}
    for method in results.rows(table):
        theirs = goodness(method, metric)
        shared = sorted(ours.keys() & theirs.keys())
        if method.name != results.reference and shared:
            gains = np.array([theirs[patient] - ours[patient] for patient in shared])
            found[method.name], patients[method.name] = two_sided(np.round(gains, DECIMALS)), len(shared)
    adjusted = holm(found)
    return {name: Difference(p, adjusted[name], patients[name]) for name, p in found.items()}


def two_sided(gains: NDArray[np.float64]) -> float:
    """Returns the two-sided p of the exact paired sign-flip test of (n,) gains; see `registry.gates.sign_flip`."""
    return min(1.0, 2 * min(sign_flip(gains), sign_flip(-gains)))


def smallest_p(patients: int) -> float:
    """Returns the smallest two-sided p that differences of so many patients can show, however large they are."""
    return min(1.0, 2 / 2**patients if patients <= EXACT else 2 / (1 + RESAMPLES))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusts the p of several tests, so that one level bounds the chance of any false finding among them.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand J Statist 6 (1979).
    """
    adjusted, highest = {}, 0.0
    for place, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p) - place) * value))
        adjusted[name] = highest
    return adjusted


def _by_patient(method: MethodResults, metric: str) -> dict[str, list[float]]:
    """Returns patient -> the values of the seeds."""
    found: dict[str, list[float]] = {}
    for run in method.measured:
        for patient, values in (run.patients or {}).items():
            if metric in values:
                found.setdefault(patient, []).append(values[metric])
    return found


def _deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
