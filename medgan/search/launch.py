"""Foresees what a search will do, what it needs and how long it should take, before it starts."""

from dataclasses import dataclass, replace

from medgan.config import Config
from medgan.distributed.resources import Capacity, Resources
from medgan.search.forecast import GROUP_START_S, Forecast, forecast, middles
from medgan.search.largest_trial import Largest, largest, refuse_what_has_no_memory
from medgan.search.space import Space
from medgan.training.memory_estimate import Estimate, estimate, gigabytes
from medgan.units import duration


@dataclass(frozen=True)
class Launch:
    """Describes the resources and the number of trials of a search.

    Attributes:
        num_slices: number of slices of the training patients.
        trials: number of missing trials.
        memory_bytes: memory of the smallest GPU, or of the machine; None: not known, as on a cluster.
        device_hours: GPU-hours or core-hours that are left of the budget; None: no limit.
        hours: hours of wall time that are left of the budget; None: no limit.
    """

    capacity: Capacity
    resources: Resources
    concurrent: int
    num_slices: int
    trials: int
    memory_bytes: int | None = None
    device_hours: float | None = None
    hours: float | None = None


@dataclass(frozen=True)
class Outlook:
    """Describes what a search should need.

    Attributes:
        middle: estimate of a trial in the middle of the space; of several methods, the first.
        keep: number of generators of finished trials that are kept.
        max_bytes: limit of the study's checkpoints; None: no limit.
    """

    launch: Launch
    middle: Estimate
    largest: Largest
    forecast: Forecast
    keep: int
    max_bytes: int | None

    @property
    def device_hours(self) -> float | None:
        """Returns the GPU-hours or core-hours of all missing trials; None if the time is not known."""
        trial_s, launch = self.forecast.trial_s, self.launch
        return None if trial_s is None else launch.trials * launch.resources.devices * trial_s / 3600

    @property
    def affordable(self) -> int | None:
        """Returns how many of the missing trials the budget should allow; None if the time is not known."""
        trial_s, launch = self.forecast.trial_s, self.launch
        if trial_s is None:
            return None
        fitting = [launch.trials]
        if launch.device_hours is not None:
            fitting.append(int(launch.device_hours * 3600 / (launch.resources.devices * trial_s)))
        if launch.hours is not None:
            rounds = int((launch.hours * 3600 - GROUP_START_S) / trial_s)
            fitting.append(max(rounds, 0) * launch.concurrent)
        return min(fitting)

    @property
    def study_bytes(self) -> int:
        """Sums the bytes of checkpoints on disk at most: of the running trials, and of the kept generators."""
        each = self.largest.estimate
        kept = self.keep * each.kept_bytes
        return self.launch.concurrent * each.checkpoint_bytes + min(kept, self.max_bytes or kept)


def outlook(space: Space, base: Config, launch: Launch) -> Outlook:
    """Foresees a search without starting Ray; raises InputError if the largest trial does not fit into the memory."""
    workers, device = launch.resources.workers, launch.resources.device
    most = largest(space, base, workers=workers, device=device)
    if launch.memory_bytes is not None:
        refuse_what_has_no_memory(most, launch.memory_bytes, workers=workers, device=device)
    threads = 0 if launch.resources.use_gpu else workers * launch.resources.cpus
    limit = space.checkpoints.max_gb
    return Outlook(
        launch=launch,
        middle=estimate(middles(space, base)[0], workers=workers, device=device),
        largest=most,
        forecast=forecast(space, base, num_slices=launch.num_slices, threads=threads, workers=workers),
        keep=space.checkpoints.keep,
        max_bytes=None if limit is None else int(limit * 1e9),
    )


def lines(outlook: Outlook) -> dict[str, str]:
    """Returns the lines that a user sees before the start, by name, for `summary.show_facts`."""
    facts = {
        "groups": _groups(outlook.launch),
        "networks": _networks(outlook),
        "memory": _memory(outlook),
        "disk": _disk(outlook),
        "expected": _expected(outlook),
    }
    limited = outlook.launch.device_hours is not None or outlook.launch.hours is not None
    return facts | ({"budget": _budget(outlook)} if limited and outlook.launch.trials else {})


def _groups(launch: Launch) -> str:
    capacity, resources = launch.capacity, launch.resources
    fits = capacity.groups(replace(resources, cpus=1))
    by_gpu = resources.use_gpu and capacity.gpus <= capacity.cpus
    limit, there = ("GPUs", capacity.gpus) if by_gpu else ("CPU cores", capacity.cpus)
    each = f"{'1 GPU and ' if resources.use_gpu else ''}{resources.cpus} CPU core{'s' if resources.cpus > 1 else ''}"
    workers = f"{resources.workers} worker{'s' if resources.workers > 1 else ''} of {each}"
    return f"{launch.concurrent} of {fits} that fit at once; each takes {workers}; {there} {limit} are the limit"


def _networks(outlook: Outlook) -> str:
    middle, most = outlook.middle, outlook.largest.estimate
    judge = f"discriminator {_range(middle.discriminator_parameters, most.discriminator_parameters)}"
    rest = judge if most.discriminator_parameters else "no discriminator"
    return f"generator {_range(middle.generator_parameters, most.generator_parameters)} parameters, {rest}"


def _range(middle: int, most: int) -> str:
    """Formats two parameter counts in millions: in the middle of the space, and in the largest trial."""
    low, high = (f"{count / 1e6:.3g} M" for count in sorted((middle, most)))
    return low if low == high else f"{low} to {high}"


def _memory(outlook: Outlook) -> str:
    launch, most = outlook.launch, outlook.largest
    each = most.estimate.bytes_per_worker
    text = f"at most about {gigabytes(each)} a worker ({most})"
    if launch.memory_bytes is None:
        return text
    at_once = each if launch.resources.use_gpu else each * launch.resources.workers * launch.concurrent
    there = f"{gigabytes(launch.memory_bytes)} {'on a GPU' if launch.resources.use_gpu else 'here'}"
    if at_once <= launch.memory_bytes:
        return f"{text}, of {there}"
    return f"{text}; {launch.concurrent} such trials at once need {gigabytes(at_once)}, more than the {there}"


def _disk(outlook: Outlook) -> str:
    each = outlook.largest.estimate
    return (
        f"at most {gigabytes(each.checkpoint_bytes)} a running trial, {gigabytes(each.kept_bytes)} a kept one; "
        f"{gigabytes(outlook.study_bytes)} for the study"
    )


def _expected(outlook: Outlook) -> str:
    launch, forecast = outlook.launch, outlook.forecast
    if not launch.trials:
        return "no trial is missing"
    seconds, hours = forecast.total_s(launch.trials, launch.concurrent), outlook.device_hours
    trials = f"{launch.trials} trial{'' if launch.trials == 1 else 's'} of"
    counted = f"{trials} about {forecast.epochs:.3g} epochs each"
    if forecast.trial_s == forecast.limit_s:
        return f"about {duration(seconds or 0)}, for {trials} {duration(forecast.limit_s)}"
    if seconds is None or hours is None:
        return f"known after the first epochs, for {counted}"
    spent = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
    return f"about {duration(seconds)}, {spent} {launch.resources.unit}, for {counted} ({forecast.basis})"


def _budget(outlook: Outlook) -> str:
    launch, affordable = outlook.launch, outlook.affordable
    limits = []
    if launch.device_hours is not None:
        limits.append(f"{launch.device_hours:.3g} {launch.resources.unit}")
    if launch.hours is not None:
        limits.append(duration(3600 * launch.hours))
    left = f"{' and '.join(limits)} left"
    if affordable is None:
        return left
    cut = "all" if affordable == launch.trials else f"about {affordable}"
    return f"{left}: enough for {cut} of the {launch.trials} trials"
