"""Trains a recorded run again from scratch and compares its curve with the recorded one."""

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medgan.config import TAUGHT, Config, validated, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import STATES, described, sealed
from medgan.distributed.resources import Resources
from medgan.distributed.worker import Start
from medgan.distributed.worker_group import TrialFailed
from medgan.errors import Diverged, InputError, JobError
from medgan.paths import Place
from medgan.provenance import CONFIG_FILE, PROVENANCE_FILE, Facts, differences, job_facts, run_facts
from medgan.tracking.store import RunRecord, read_run
from medgan.training.build_networks import deepest_block
from medgan.training.build_training import with_lpips
from medgan.training.frozen_features import feature_facts
from medgan.workflows.events import Announcement, EnginesStart, Note, Notify, ignore
from medgan.workflows.find_features import with_weights
from medgan.workflows.learn_features import taught_file
from medgan.workflows.requirements import goes_on, refuse_what_cannot_train
from medgan.workflows.training_runner import Trainee, trainee

EQUAL = 1e-6
"""Two values are called equal up to this relative difference."""


@dataclass(frozen=True)
class ReproduceRequest:
    """Describes a reproduction (see `medgan reproduce --help`); None: as recorded."""

    run_id: str
    place: Place
    data: Path | None = None
    epochs: int | None = None
    workers: int | None = None
    rtol: float = 1e-4


OTHER_SCALE = "extractor.scale: as_is then, oxford by default now: the feature scale differs; as_is is used here"


@dataclass(frozen=True)
class Recorded:
    """Holds what a run records about itself.

    Attributes:
        metric: by which its best epoch was chosen.
        curve: epoch, from 1 -> the metric's value.
        facts: what made it, see `medgan.provenance`; empty where nothing was kept.
    """

    config: Config
    metric: str
    curve: Mapping[int, float]
    facts: Facts

    @property
    def epochs(self) -> int:
        """Returns how many epochs were trained, early stopping counted in."""
        return max(self.curve)


@dataclass(frozen=True)
class Reproduced:
    """Says how the curve of a run that was trained again compares with the recorded one.

    Attributes:
        verdict: for a person.
        gap: largest relative difference.
    """

    run_id: str
    metric: str
    verdict: str
    gap: float


def reproduce(request: ReproduceRequest, notify: Notify = ignore) -> Reproduced:
    """Trains a run again, from scratch and in a folder that is removed, and compares epoch by epoch.

    Raises:
        InputError: the run cannot be trained again here.
        JobError: it can, and another curve came out.
    """
    place, run = request.place, read_run(request.place.tracking_uri, request.run_id)
    recorded = _recorded(run, request)
    dataset = recorded_dataset(run.tags, place, request.data)
    workers = request.workers or recorded.facts.get("run", {}).get("workers", 1)
    refuse_what_cannot_train(recorded.config, workers)
    config = with_lpips(_taught_again(recorded.config, dataset, place))
    config = with_weights(config, deepest_block(config), place, dataset, notify)
    place.output.mkdir(parents=True, exist_ok=True)
    notify(EnginesStart(place.log_file(f"reproduce-{request.run_id[:8]}")))
    with tempfile.TemporaryDirectory(prefix="reproduce-", dir=place.output, ignore_cleanup_errors=True) as folder:
        start, threads = Start(config, str(dataset.state), folder), recorded.facts.get("run", {}).get("threads")
        with trainee(start, workers=workers, threads=threads, output=place.output, notify=notify) as (
            training,
            resources,
        ):
            _report_differences(notify, replace(recorded, config=config), dataset, resources, run_id=request.run_id)
            curve = list(_curve(training, recorded, notify))
        said, gap = verdict(recorded.curve, curve)
        if not gap <= request.rtol:
            raise JobError(
                "E-REPRODUCE-01", run_id=request.run_id, metric=recorded.metric, said=said, rtol=request.rtol
            )
        return Reproduced(request.run_id, recorded.metric, said, gap)


def _recorded(run: RunRecord, request: ReproduceRequest) -> Recorded:
    """Returns what to compare with; a run that lacks it is refused."""
    name = f"run {request.run_id}"
    if CONFIG_FILE not in run.files:
        raise InputError("E-REPRODUCE-02", name=name, config_file=CONFIG_FILE)
    try:
        config = validated(as_trained(run.files[CONFIG_FILE]))
    except InputError as error:
        raise InputError("E-REPRODUCE-03", name=name, error=error) from None
    metric = config.metrics.select
    curve = run.history.get(metric, {})
    if not curve:
        raise InputError("E-REPRODUCE-04", name=name, metric=metric)
    last = request.epochs or max(curve)
    if last > max(curve):
        raise InputError("E-REPRODUCE-05", last=last, name=name, curve=max(curve))
    kept = {epoch: value for epoch, value in sorted(curve.items()) if epoch <= last}
    return Recorded(config, metric, kept, run.files.get(PROVENANCE_FILE, {}))


def _taught_again(config: Config, dataset: PreparedDataset, place: Place) -> Config:
    """Returns the configuration; an extractor that was taught on this data set is taught again if its file is gone."""
    weights = Path(config.extractor.weights)
    if weights.exists() or weights.name != taught_file(dataset, place).name:
        return config
    return with_values(config, {"extractor.weights": TAUGHT})


def as_trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns recorded settings with the scale of features that was used before there was a setting for it."""
    return {**settings, "extractor": {"scale": "as_is", **settings.get("extractor", {})}}


def recorded_dataset(tags: Mapping[str, str], place: Place, data: Path | None) -> PreparedDataset:
    """Returns the data set that a run was trained on, unchanged to the byte.

    Args:
        data: the data set's folder, where it lies elsewhere.

    Raises:
        InputError: it is not there, has changed, or is split otherwise.
    """
    digest, split = tags.get("medgan.data_digest", "not recorded"), tags.get("medgan.split_digest", "not recorded")
    folders = [data] if data else [*place.datasets.glob("*"), *place.datasets.glob("remote/*")]
    states = [folder / STATES / f"{digest}.json" for folder in folders]
    found = next((state for state in states if state.is_file()), None)
    if found is None:
        where = f"in {data}" if data else f"below {place.datasets} (use --data to name its folder)"
        raise InputError("E-REPRODUCE-06", digest=digest, where=where)
    dataset = PreparedDataset.open(found)
    if sealed(dataset.manifest).digest != digest:
        raise InputError("E-REPRODUCE-07", found=found, digest=digest)
    _refuse_changed_arrays(dataset, digest)
    if dataset.manifest.split_digest != split:
        raise InputError("E-REPRODUCE-09", found=found, split=split, split_digest=dataset.manifest.split_digest)
    return dataset


def _refuse_changed_arrays(dataset: PreparedDataset, digest: str) -> None:
    for patient in dataset.manifest.patients:
        for name, sha256 in patient.sha256.items():
            path = dataset.folder / patient.folder / name
            if not path.is_file() or _digest_of(path) != sha256:
                raise InputError("E-REPRODUCE-08", path=path, digest=digest, sha256=sha256)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report_differences(
    notify: Notify, recorded: Recorded, dataset: PreparedDataset, resources: Resources, *, run_id: str
) -> None:
    config, device = recorded.config, "GPU" if resources.use_gpu else "CPU"
    threads = "" if resources.use_gpu else f", threads each: {resources.cpus}"
    facts = {
        "run": f"{run_id}, {recorded.epochs} epochs of {config.train.epochs} at most",
        "data": described(dataset.manifest),
        "workers": f"{resources.workers} on {device}{threads}",
    }
    notify(Announcement(facts))
    now = run_facts(
        job_facts(data_digest=dataset.digest, split_digest=dataset.manifest.split_digest),
        workers=resources.workers,
        threads=resources.cpus,
        device=resources.device,
        seed=config.train.seed,
        features=feature_facts(config),
    )
    lines = _other_than_then(recorded, now)
    for line in lines or ["code, versions, hardware and workers are the same as in the recorded run"]:
        notify(Note(line))


def _other_than_then(recorded: Recorded, now: Facts) -> list[str]:
    """Returns a line for each thing that is not as it was when the run was recorded."""
    config, then = recorded.config, recorded.facts
    lines = differences(then, now) if then else ["its code, versions and hardware are not recorded"]
    if "features" not in then and now["features"]:
        lines = [*(line for line in lines if not line.startswith("features.")), OTHER_SCALE]
    if config.train.minutes and not goes_on(config):
        lines.append("train.minutes: its schedule followed the clock, which does not go the same way twice")
    if config.train.speed == "measured":
        lines.append("train.speed: how a step is computed fastest is measured anew, and may round otherwise")
    return lines


def _curve(training: Trainee, recorded: Recorded, notify: Notify) -> Iterator[float]:
    """Yields the metric's value of each epoch, and reports it."""
    for epoch in range(1, recorded.epochs + 1):
        while len(training.history) < epoch:
            try:
                training.advance()
            except (Diverged, TrialFailed) as error:
                raise JobError("E-REPRODUCE-10", epoch=epoch, error=error) from None
            for text in training.events_so_far():
                notify(Note(text))
        value, before = training.history[epoch - 1][recorded.metric], recorded.curve.get(epoch)
        then = "not recorded" if before is None else f"{before:.10g} then"
        change = "" if before is None or value == before else f" ({value - before:+.2g})"
        notify(Note(f"epoch {epoch}/{recorded.epochs}: {recorded.metric} {then}, {value:.10g} now{change}"))
        yield value


def verdict(then: Mapping[int, float], now: Sequence[float]) -> tuple[str, float]:
    """Returns how a curve compares with the recorded one, for a person; and the largest relative difference.

    Args:
        then: epoch, from 1 -> value.
        now: value of every epoch.
    """
    gaps = {epoch: _gap(value, now[epoch - 1]) for epoch, value in then.items()}
    largest, compared = max(gaps.values()), f"{len(gaps)} epoch{'s' if len(gaps) > 1 else ''}"
    if not largest:
        return f"identical in {compared}", largest
    if largest <= EQUAL:
        return f"equal within {EQUAL:g} in {compared}", largest
    first = min(epoch for epoch, gap in gaps.items() if gap > EQUAL)
    worst = max(gaps, key=lambda epoch: gaps[epoch])
    difference = abs(now[worst - 1] - then[worst])
    return f"differs from epoch {first} by up to {difference:.2g} (relative {largest:.2g})", largest


def _gap(then: float, now: float) -> float:
    """Returns the relative difference; 0 between two NaN, infinite where only one is NaN."""
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    gap = abs(then - now) / max(abs(then), abs(now))
    return math.inf if math.isnan(gap) else gap
