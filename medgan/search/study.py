"""The study database: the truth about every trial, whatever crashed."""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from medgan.errors import InputError
from medgan.locks import opening
from medgan.paths import redacted
from medgan.search.objectives import Goal, keep_goals

Study = optuna.Study
"""For whoever only hands a study on."""
Recorded = FrozenTrial
"""The same for a trial as the database holds it."""

FINAL_FAILURES = ("diverged", "out_of_memory", "input", "error", "restarts")
"""Kinds of failure that finish a trial; any other is not its own fault, and the trial is tried again."""
UNCHARGED = ("budget", "interrupted")
"""Kinds that say nothing about a trial: they may come any number of times."""
MAX_RETRIES = 3
CONNECT_S = 8
KEY = "key"
"""Attribute of a study: tells it from any other of the same name, in MLflow and on disk."""
PRESET = "preset"
"""Attribute of a study: the method its trials are of, unless `method` moves."""


@dataclass(frozen=True)
class Identity:
    """What a study is about; the same name with another identity is refused."""

    task: str
    data_digest: str
    space_digest: str

    def default_name(self) -> str:
        """Task and shortened digests."""
        return f"{self.task}-{self.data_digest[:6]}-{self.space_digest[:6]}"


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, multivariate=True, group=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=5),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=10),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: optuna.samplers.RandomSampler(seed=seed),  # every point of it waits in the study
}


def open_study(
    uri: str,
    name: str,
    identity: Identity,
    *,
    goals: Sequence[Goal] = (Goal("val/ssim", "max"),),
    sampler: str = "tpe",
    seed: int = 0,
) -> Study:
    """The study of that name, created if there is none.

    Raises:
        InputError: the database cannot be opened, or the name belongs to a study of another task, data or space.
    """
    directions = [StudyDirection.MAXIMIZE if goal.mode == "max" else StudyDirection.MINIMIZE for goal in goals]
    with told_for(uri), opening(uri):
        study = optuna.create_study(storage=_storage(uri), study_name=name, directions=directions, load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group: settings that move at times
        # a resumed study must not draw its first trials again
        study.set_metric_names([goal.metric for goal in goals])  # for Optuna's own pictures
        study.sampler = SAMPLERS[sampler](seed + len(study.get_trials(deepcopy=False)))
    if KEY not in study.user_attrs:
        study.set_user_attr(KEY, uuid.uuid4().hex[:8])
        keep_goals(study, goals)
    refuse_other(study, identity)
    for key, value in vars(identity).items():
        study.set_user_attr(key, value)
    return study


def find_study(uri: str, name: str) -> Study | None:
    """The study of that name, or none; nothing is made.

    Raises:
        InputError: the database cannot be opened.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    with told_for(uri):
        storage = _storage(uri)
        return (
            optuna.load_study(storage=storage, study_name=name) if name in optuna.get_all_study_names(storage) else None
        )


def load_study(uri: str, name: str) -> Study:
    """A study that is there.

    Raises:
        InputError: the database cannot be opened, or has no such study; those it has are named.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError("E-STUDY-01", uri=redacted(uri))
    study = find_study(uri, name)
    if study is None:
        names = optuna.get_all_study_names(_storage(uri))
        raise InputError("E-STUDY-02", name=name, names=", ".join(sorted(names)) or "(none is there)")
    return study


def refuse_other(study: Study, identity: Identity) -> None:
    """Refuses a study that is about something else; raises InputError."""
    for key, value in vars(identity).items():
        there = study.user_attrs.get(key, value)
        if there != value:
            raise InputError(
                "E-STUDY-03",
                study_name=study.study_name,
                replace=key.replace("_", " "),
                there=there[:12],
                value=value[:12],
            )


def _storage(uri: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    arguments: dict[str, Any] = {}
    if not uri.startswith("sqlite"):  # a server: it may be away, or have been away since the last question
        arguments = {"connect_args": {"connect_timeout": CONNECT_S}, "pool_pre_ping": True}
    return RDBStorage(uri, engine_kwargs=arguments)


@contextmanager
def told_for(uri: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError("E-STUDY-04", uri=redacted(uri), error=error) from None
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise InputError("E-STUDY-05", uri=redacted(uri), splitlines=str(error).splitlines()[0]) from None


def first_attempt_of(trial: FrozenTrial | Trial) -> int:
    """The number of the first trial of a chain of retries: what checkpoints and MLflow runs go by."""
    return int(trial.user_attrs.get("root", trial.number))


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, running, waiting, or the kind of failure."""
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get("failure", "infrastructure")
    return trial.state.name.lower()


def is_finished(trial: FrozenTrial) -> bool:
    """Complete, pruned, or failed by its own fault."""
    return state_of(trial) in ("complete", "pruned", *FINAL_FAILURES)


def finished(study: Study) -> list[FrozenTrial]:
    """Every finished trial."""
    return [trial for trial in study.get_trials(deepcopy=False) if is_finished(trial)]


def queued(study: Study) -> list[dict[str, Any]]:
    """The settings of every trial that waits to be begun."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [dict(trial.system_attrs.get("fixed_params", {})) for trial in waiting]


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether it keeps every constraint."""
    return all(excess <= 0 for excess in trial.constraints.values())


def front(study: Study) -> list[FrozenTrial]:
    """The trials that no other beats in every goal, the best in the first goal first; constraints are kept.

    With one goal it is the best one, complete or pruned: the value is that of its best epoch, which was kept.
    """
    maximize = study.directions[0] == StudyDirection.MAXIMIZE
    if len(study.directions) > 1:
        scored = [trial for trial in study.best_trials if is_feasible(trial)]
    else:
        scored = [trial for trial in finished(study) if trial.values and is_feasible(trial)]
    ordered = sorted(scored, key=lambda trial: trial.values[0], reverse=maximize)
    return ordered if len(study.directions) > 1 else ordered[:1]


def frozen(study: Study, number: int) -> FrozenTrial:
    """A trial as the database holds it now."""
    return study.get_trials(deepcopy=False)[number]


def best_trial(study: Study) -> tuple[FrozenTrial, float] | None:
    """The first of the front and its value in the first goal; none where no trial keeps the constraints."""
    trials = front(study)
    return (trials[0], trials[0].values[0]) if trials else None


def fail(study: Study, trial: FrozenTrial, kind: str, reason: str) -> None:
    """Ends a running trial as failed; one that is not its own fault is put back into the queue.

    Three times at most where something broke; any number of times where it was only interrupted.
    """
    retries = int(trial.user_attrs.get("retries", 0))
    if kind in FINAL_FAILURES:
        _end(study, trial, kind, reason)
    elif kind in UNCHARGED:
        _repeat(study, trial, kind, reason, retries=retries)
    elif retries < MAX_RETRIES:
        _repeat(study, trial, kind, reason, retries=retries + 1)
    else:
        _end(study, trial, "error", f"{reason}; given up after {retries} retries")


def recover(study: Study) -> list[int]:
    """Puts the trials that a dead driver left running back into the queue; returns their roots."""
    left = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING]
    for trial in left:
        fail(study, trial, "interrupted", "the driver ended while the trial was running")
    return [first_attempt_of(trial) for trial in left]


def _repeat(study: Study, trial: FrozenTrial, kind: str, reason: str, *, retries: int) -> None:
    """Queued before it is ended: whatever happens in between, the trial is not lost."""
    if all(other.user_attrs.get("retry_of") != trial.number for other in study.get_trials(deepcopy=False)):
        queue_again(study, trial, retries=retries)
    _end(study, trial, kind, reason)


def queue_again(study: Study, trial: FrozenTrial, *, retries: int) -> None:
    """Queues a trial's next attempt, with the settings it had or, if it was never begun, was to have."""
    drawn = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    study.enqueue_trial(
        drawn, user_attrs={"root": first_attempt_of(trial), "retry_of": trial.number, "retries": retries}
    )


def _end(study: Study, trial: FrozenTrial, kind: str, reason: str) -> None:
    writable = Trial(study, trial._trial_id)
    writable.set_user_attr("failure", kind)
    writable.set_user_attr("reason", reason)
    study.tell(trial.number, state=TrialState.FAIL)


def summary(trials: list[FrozenTrial]) -> Mapping[str, int]:
    """How many trials are in which state."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[state_of(trial)] = counts.get(state_of(trial), 0) + 1
    return counts
