"""Accepts or refuses the request of a search before any engine starts, and prepares its data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from medgan.config import Config, at_least_one, with_values
from medgan.data.dataset import PreparedDataset
from medgan.distributed.cluster import is_given, resources_for
from medgan.distributed.resources import machine
from medgan.errors import InputError
from medgan.paths import Place, redacted
from medgan.search.budget import limited
from medgan.search.live_settings import idle_settings
from medgan.search.objectives import COSTS
from medgan.search.space import Budget, Space
from medgan.search.space_yaml import read_space
from medgan.search.study import PRESET, Identity, Study, find_study, open_study, queued
from medgan.tasks import Task
from medgan.training.build_networks import deepest_block
from medgan.training.build_training import with_lpips
from medgan.workflows.events import Note, Notify, ignore
from medgan.workflows.find_features import refuse_unfit_weights, with_weights
from medgan.workflows.requirements import (
    dataset_for,
    refuse_too_few_slices,
    refuse_unmeasured,
    refuse_what_cannot_train,
)

NO_DOWNLOAD = "E-WEIGHTS-02"
SCALE = "extractor.scale"
"""The setting whose value a study keeps as an attribute; studies from before there was such a setting have none."""


@dataclass(frozen=True)
class SearchRequest:
    """Describes a search; None means the default (see `medgan tune --help`)."""

    task: Task
    place: Place
    data: str | None = None
    space: str | Space | None = None
    study: str | None = None
    trials: int | None = None
    workers: int | None = None
    concurrent: int | None = None
    max_gpu_hours: float | None = None
    max_hours: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """Holds a request that was checked, with its data prepared; nothing is stored and no engine runs yet.

    Attributes:
        identity: what the study is about.
        has_weights: False: the extractor's weights could not be downloaded; random ones stand in their place.
    """

    request: SearchRequest
    space_name: str
    space: Space
    base: Config
    target: int
    budget: Budget
    dataset: PreparedDataset
    identity: Identity
    has_weights: bool = True

    @property
    def name(self) -> str:
        """Returns the name of the study."""
        return self.request.study or self.identity.default_name()

    def open_study(self) -> Study:
        """Returns the study, created if there is none, with the first trials of the search in its queue.

        Raises:
            InputError: more of a grid waits in it than is asked for now, and would be trained in its place.
        """
        study = open_study(
            self.request.place.study_uri,
            self.name,
            self.identity,
            goals=self.space.goals,
            sampler=self.space.sampler,
            seed=self.base.train.seed,
        )
        study.set_user_attr(PRESET, self.space.preset)
        study.set_user_attr(SCALE, self.base.extractor.scale)
        points = self.space.beginnings(self.base)[: self.target]
        if self.space.sampler == "grid" and (more := [point for point in queued(study) if point not in points]):
            what = ", ".join(f"{setting}={value}" for setting, value in more[0].items())
            raise InputError("E-REQUEST-01", name=self.name, what=what)
        for point in points:
            study.enqueue_trial(point, skip_if_exists=True)
        return study


def accept(request: SearchRequest, notify: Notify = ignore, *, for_plan: bool = False) -> Accepted:
    """Refuses everything that can be refused, the cheapest checks first; prepares the data.

    Args:
        for_plan: a plan may go on without weights that cannot be downloaded here; a search may not.
    """
    space_name, space = _space_of(request)
    target = _target(space, request.trials)
    budget = limited(space.budget, gpu_hours=request.max_gpu_hours, hours=request.max_hours)
    _refuse_unfit_name(request.study)
    if request.place.study_uri == request.place.tracking_uri:
        raise InputError("E-REQUEST-03", study_uri=redacted(request.place.study_uri))
    base = with_lpips(space.base(request.overrides))
    asked = [*(goal.metric for goal in space.goals), *(limit.metric for limit in space.limits)]
    measured_ones = [metric for metric in asked if metric not in COSTS]
    refuse_unmeasured(measured_ones, base, request.task.target)
    _refuse_idle_settings(request, space, base, notify)
    corners = space.corners(base)
    deepest = max(map(deepest_block, corners))
    if not is_given():
        resources, _ = resources_for(machine(), workers=request.workers, concurrent=request.concurrent)
        for corner in corners:
            refuse_what_cannot_train(corner, resources.workers)
    refuse_unfit_weights(base, deepest)
    dataset = dataset_for(request.data, request.task, size=base.data.size, place=request.place, notify=notify)
    dataset = _data_as_begun(request, dataset, notify)
    for corner in corners:
        refuse_too_few_slices(corner, len(dataset.slices("train")))
    identity = Identity(request.task.name, dataset.digest, space.digest(request.overrides))
    ready = Accepted(request, space_name, space, base, target, budget, dataset, identity)
    return _as_begun(_with_weights(ready, deepest, notify, for_plan=for_plan), deepest, notify)


def _data_as_begun(request: SearchRequest, dataset: PreparedDataset, notify: Notify) -> PreparedDataset:
    """Returns the data set; for a study that began before its images were read by the rules of today, that of then."""
    study = find_study(request.place.study_uri, request.study) if request.study else None
    digest = study.user_attrs.get("data_digest", dataset.digest) if study else dataset.digest
    state = dataset.state.with_name(f"{digest}.json")
    if digest == dataset.digest or not state.is_file():
        return dataset
    begun = PreparedDataset.open(state)
    if begun.manifest.mask_rule == dataset.manifest.mask_rule:
        return dataset
    notify(
        Note(f"This study began before images were read by the present rules: it goes on with data set {digest[:12]}.")
    )
    return begun


def _refuse_idle_settings(request: SearchRequest, space: Space, base: Config, notify: Notify) -> None:
    """Refuses a search over a setting that nothing looks at; an older study over such a setting may go on."""
    for setting in idle_settings(space, base):
        error = InputError("E-SPACE-20", setting=setting)
        if request.study is None or find_study(request.place.study_uri, request.study) is None:
            raise error
        notify(Note(f"warning: {error}"))


def _with_weights(accepted: Accepted, deepest: int, notify: Notify, *, for_plan: bool) -> Accepted:
    """Returns the request with the weights of its extractor in a file, or in a plan perhaps without them."""
    request, base = accepted.request, accepted.base
    if accepted.space.names_of_methods:  # each method has blocks of its own; of the base only the extractor counts
        base = with_values(base, {"loss.style_blocks": (1,), "loss.content_blocks": (1,)})
    try:
        return replace(accepted, base=with_weights(base, deepest, request.place, accepted.dataset, notify))
    except InputError as error:
        if not (for_plan and error.code == NO_DOWNLOAD):
            raise
        notify(Note(f"{error} A search needs these weights; this plan goes on without them."))
        return replace(accepted, base=with_values(base, {"extractor.weights": "random"}), has_weights=False)


def _as_begun(accepted: Accepted, deepest: int, notify: Notify) -> Accepted:
    """Returns the request; a study from before there was a scale of features goes on without one, in every method."""
    study, base = find_study(accepted.request.place.study_uri, accepted.name), accepted.base
    if study is None or not study.get_trials(deepcopy=False) or not deepest:
        return accepted
    scale = study.user_attrs.get(SCALE, "as_is")
    if scale == base.extractor.scale:
        return accepted
    notify(Note(f"This study began before features were brought to one scale: it goes on with {SCALE}={scale}."))
    space = accepted.space.with_overrides({SCALE: scale})
    return replace(accepted, base=with_values(base, {SCALE: scale}), space=space)


def _space_of(request: SearchRequest) -> tuple[str, Space]:
    """Returns the search space and its name; refuses settings that the space moves."""
    named = request.space or (request.task.name if request.data else request.task.quick_space)
    if isinstance(named, str):
        name, space = named, read_space(named, request.overrides)
    else:
        name, space = str(named.sampler), named.with_overrides(request.overrides)
    for setting in space.search:
        if setting in request.overrides:
            raise InputError("E-REQUEST-02", setting=setting, space_name=name)
    return name, space


def _target(space: Space, trials: int | None) -> int:
    """Returns how many finished trials are wanted: as requested, else as the space says, else all of a grid."""
    most = len(space.grid()) if space.sampler == "grid" else None
    if trials is not None and most is not None and trials > most:
        raise InputError("E-REQUEST-04", most=most, trials=trials)
    if trials is not None:
        return at_least_one("--trials", trials)
    if most is None:
        return space.trials
    return min(space.trials, most) if "trials" in space.model_fields_set else most


def _refuse_unfit_name(name: str | None) -> None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError("E-REQUEST-05", name=name)
