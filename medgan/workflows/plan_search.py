"""Says what a search will do before it starts: what fits, what it needs, how long it takes."""

from contextlib import ExitStack
from dataclasses import dataclass

from medgan.data.manifest import described
from medgan.distributed.cluster import Capacity, cluster, is_given, machine, resources_for
from medgan.distributed.probe import probe
from medgan.distributed.worker_group import Resources
from medgan.search.budget import Meter
from medgan.search.launch import Launch, Outlook, lines, outlook
from medgan.search.machine_memory import available_bytes
from medgan.search.study import find_study, finished, refuse_other
from medgan.training.build_networks import deepest_block
from medgan.workflows.acceptance import (
    Accepted,
    SearchRequest,
    accept,
    features_of,
    nothing_left_behind,
    refuse_what_cannot_train,
)
from medgan.workflows.events import Announcement, EnginesStart, Note, Notify, ignore

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
    facts = {
        "study": f"{accepted.name}: {done} of {max(accepted.target, done)} trials done",
        "data": described(manifest),
        "space": f"{accepted.space_name}: {moving}, {STOPPING[space.scheduler.kind]}, {space.sampler}",
        **({"methods": space.named} if space.names_of_methods else {}),
        "goal": "; ".join([wanted, *map(str, space.limits)]),
        "features": features_of(max(space.corners(accepted.base), key=deepest_block)),
        **(lines(foreseen) if foreseen else {}),
        "output": f"{accepted.request.place.output} (log: logs/{accepted.name}.log)",
    }
    for note in manifest.notes:
        notify(Note(note))
    notify(Announcement(facts))


def try_out(accepted: Accepted, foreseen: Outlook, fit: Fit) -> list[str]:
    """Runs one real step of the largest trial, and checks storage, data and tracking from every node of the cluster.

    Raises:
        InputError: something cannot be reached or does not fit.
    """
    place = accepted.request.place
    stores = {"--study-uri": place.study_uri, "--tracking-uri": place.tracking_uri}
    return probe(foreseen.largest.config, accepted.dataset.state, place.output, stores, fit.resources, limit_s=PROBE_S)


def plan(request: SearchRequest, notify: Notify = ignore, *, with_probe: bool = False) -> Outlook | None:
    """Does everything that a search does before its first trial, and starts no trial; only data are prepared.

    Returns:
        What the missing trials need; None: no trial is missing.

    Raises:
        InputError: the request cannot be carried out.
    """
    with nothing_left_behind(request.place.output), ExitStack() as stack:
        accepted = accept(request, notify)
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
