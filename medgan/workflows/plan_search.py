"""Says what a search will do before it starts: what fits, what it needs, how long it takes."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter

from medgan.config import with_values
from medgan.data.manifest import described
from medgan.distributed.cluster import cluster, is_given, resources_for
from medgan.distributed.probe import probe
from medgan.distributed.resources import Capacity, Resources, machine
from medgan.errors import InputError
from medgan.search.budget import Meter
from medgan.search.launch import Launch, Outlook, lines, outlook
from medgan.search.live_settings import LAMBDA, WeightRange, searched_weights, share_text, weight_ranges
from medgan.search.machine_memory import available_bytes
from medgan.search.study import find_study, finished, refuse_other
from medgan.training.build_networks import deepest_block
from medgan.training.term_gradients import norms_at_start
from medgan.workflows.acceptance import Accepted, SearchRequest, accept
from medgan.workflows.events import Announcement, EnginesStart, Note, Notify, ignore
from medgan.workflows.find_features import features_of
from medgan.workflows.requirements import nothing_left_behind, refuse_what_cannot_train

PROBE_S = 600.0
STOPPING = {"asha": "ASHA", "median": "median rule", "none": "no early stopping"}


@dataclass(frozen=True)
class Fit:
    """Says how a request fits a machine or a cluster."""

    capacity: Capacity
    resources: Resources
    concurrent: int


def fitted(accepted: Accepted, capacity: Capacity) -> Fit:
    """Returns how many groups of which size fit; refuses what can never be scheduled or shared."""
    request = accepted.request
    resources, concurrent = resources_for(capacity, workers=request.workers, concurrent=request.concurrent)
    if is_given():  # what this machine would do was checked before
        for corner in accepted.space.corners(accepted.base):
            refuse_what_cannot_train(corner, resources.workers)
    return Fit(capacity, resources, concurrent)


def foresee(accepted: Accepted, fit: Fit, *, done: int, meter: Meter | None) -> Outlook | None:
    """Returns what the missing trials need, measured without an engine; None where no trial is missing.

    Args:
        meter: of what the study took already; None where there is no study yet.
    """
    if done >= accepted.target:
        return None
    budget = accepted.budget if meter is None else meter.left()
    launch = Launch(
        capacity=fit.capacity,
        resources=fit.resources,
        concurrent=fit.concurrent,
        num_slices=len(accepted.dataset.slices("train")),
        trials=accepted.target - done,
        memory_bytes=None if is_given() else available_bytes(fit.resources.device),
        device_hours=budget.gpu_hours,
        hours=budget.hours,
    )
    return outlook(accepted.space, accepted.base, launch)


def report_plan(notify: Notify, accepted: Accepted, foreseen: Outlook | None, *, done: int) -> None:
    """Reports the plan and the notes of the data set."""
    space, manifest = accepted.space, accepted.dataset.manifest
    train = accepted.base.train
    length = f"{train.minutes:g} min" if train.minutes else f"up to {train.epochs} epochs"
    moving = f"{len(space.search)} settings, {length} a trial"
    wanted = " and ".join(f"{goal.metric} ({goal.mode})" for goal in space.goals)
    ranges = searched_ranges(accepted) if foreseen else []
    facts = {
        "study": f"{accepted.name}: {done} of {max(accepted.target, done)} trials done",
        "data": described(manifest),
        "space": f"{accepted.space_name}: {moving}, {STOPPING[space.scheduler.kind]}, {space.sampler}",
        **({"methods": space.named} if space.names_of_methods else {}),
        "goal": "; ".join([wanted, *map(str, space.limits)]),
        "features": _features(accepted),
        **({"gradient": _gradient(accepted, ranges)} if foreseen and searched_weights(space) else {}),
        **(lines(foreseen) if foreseen else {}),
        "output": f"{accepted.request.place.output} (log: logs/{accepted.name}.log)",
    }
    for note in manifest.notes:
        notify(Note(note))
    notify(Announcement(facts))
    for one in filter(attrgetter("is_dead"), ranges):
        notify(Note(f"warning: {one}"))


def searched_ranges(accepted: Accepted) -> list[WeightRange]:
    """Measures the gradients of the loss terms once, and returns what each searched weight does over its range.

    Of several searched methods, the first counts in which the weight matters. Without the weights of the feature
    extractor nothing is measured.
    """
    space, found = accepted.space, dict[str, WeightRange]()
    if not accepted.has_weights:
        return []
    weights = {setting: space.search[setting].largest for setting in searched_weights(space)}
    for method in space.names_of_methods or ("",) if weights else ():
        base = space.with_method(accepted.base, method) if method else accepted.base
        try:
            weighted = with_values(base, weights)
        except InputError:  # a weight whose term this method cannot have
            continue
        for one in weight_ranges(space, base, norms_at_start(weighted, accepted.dataset.slices("train"))):
            if one.setting not in found or found[one.setting].is_dead:
                found[one.setting] = one
    return list(found.values())


def _features(accepted: Accepted) -> str:
    corner = max(accepted.space.corners(accepted.base), key=deepest_block)
    if accepted.has_weights:
        return features_of(corner)
    return f"{corner.extractor.network}, its weights are to be downloaded"


def _gradient(accepted: Accepted, ranges: Sequence[WeightRange]) -> str:
    if not accepted.has_weights:
        return "not measured: the weights of the feature extractor are not at hand"
    if not ranges:
        return "not measured: no searched term looks at the output"
    shares = [f"{one.setting.removeprefix(LAMBDA)} {share_text(one.low)} to {share_text(one.high)}" for one in ranges]
    return f"{', '.join(shares)} (share of a loss term at the output over the range of its weight, untrained)"


def try_out(accepted: Accepted, foreseen: Outlook, fit: Fit) -> list[str]:
    """Runs one real step of the largest trial, and checks storage, data and tracking from every node of the cluster.

    Raises:
        InputError: something cannot be reached or does not fit.
    """
    place = accepted.request.place
    stores = {"--study-uri": place.study_uri, "--tracking-uri": place.tracking_uri}
    return probe(foreseen.largest.config, accepted.dataset.state, place.output, stores, fit.resources, limit_s=PROBE_S)


def plan(request: SearchRequest, notify: Notify = ignore, *, with_probe: bool = False) -> Outlook | None:
    """Does what a search does before its first trial, and starts none; data are prepared, and features taught.

    Returns:
        What the missing trials need; None: no trial is missing.

    Raises:
        InputError: the request cannot be carried out.
    """
    with nothing_left_behind(request.place.output), ExitStack() as stack:
        accepted = accept(request, notify, for_plan=True)
        study = find_study(request.place.study_uri, accepted.name)
        if study is not None:
            refuse_other(study, accepted.identity)
        done = len(finished(study)) if study is not None else 0
        on_ray = is_given() or with_probe
        if on_ray:
            notify(EnginesStart(request.place.log_file("plan")))
        fit = fitted(accepted, stack.enter_context(cluster()) if on_ray else machine())
        meter = Meter(study, accepted.budget, fit.resources) if study is not None else None
        foreseen = foresee(accepted, fit, done=done, meter=meter)
        report_plan(notify, accepted, foreseen, done=done)
        for note in try_out(accepted, foreseen, fit) if with_probe and foreseen else ():
            notify(Note(note))
        return foreseen
