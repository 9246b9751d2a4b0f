"""Reads and writes the study database, which decides about every trial after a crash."""

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
"""The type of a study, for modules that only pass it on."""
Recorded = FrozenTrial
"""The type of a trial read from the database, for modules that only pass it on."""

FINAL_FAILURES = ("diverged", "out_of_memory", "input", "error", "restarts")
"""Kinds of failure that finish a trial; after any other kind, which the trial did not cause, it is repeated."""
UNCHARGED = ("budget", "interrupted")
"""Kinds of failure that do not count as retries: they may occur any number of times."""
MAX_RETRIES = 3
CONNECT_S = 8
KEY = "key"
"""The attribute of a study that distinguishes it from others of the same name, in MLflow and on disk."""
PRESET = "preset"
"""The attribute of a study that names the method of its trials, unless `method` is searched."""
SHARES = "shares"
"""The attribute of a trial that holds epoch -> loss term -> its share of the gradient at the generator's output."""


@dataclass(frozen=True)
class Identity:
    """Identifies a study; the same name with another identity is refused."""

    task: str
    data_digest: str
    space_digest: str

    def default_name(self) -> str:
        """Returns a name from the task and shortened digests."""
        return f"{self.task}-{self.data_digest[:6]}-{self.space_digest[:6]}"


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, multivariate=True, group=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=5),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=10),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: optuna.samplers.RandomSampler(seed=seed),  # every point is queued in the study
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
    """Opens the study of this name, or creates it.

    Raises:
        InputError: the database cannot be opened, or a study of another task, data or space has this name.
    """
    directions = [StudyDirection.MAXIMIZE if goal.mode == "max" else StudyDirection.MINIMIZE for goal in goals]
    with database_errors(uri), opening(uri):
        study = optuna.create_study(storage=_storage(uri), study_name=name, directions=directions, load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group: conditional settings
        study.set_metric_names([goal.metric for goal in goals])  # for Optuna's own pictures
        # a resumed study must not sample its first trials again
        study.sampler = SAMPLERS[sampler](seed + len(study.get_trials(deepcopy=False)))
    if KEY not in study.user_attrs:
        study.set_user_attr(KEY, uuid.uuid4().hex[:8])
        keep_goals(study, goals)
    refuse_other(study, identity)
    for key, value in vars(identity).items():
        study.set_user_attr(key, value)
    return study


def find_study(uri: str, name: str) -> Study | None:
    """Returns the study of this name, or None; creates nothing; raises InputError if the database cannot be opened."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    with database_errors(uri):
        storage = _storage(uri)
        exists = name in optuna.get_all_study_names(storage)
        return optuna.load_study(storage=storage, study_name=name) if exists else None


def load_study(uri: str, name: str) -> Study:
    """Returns an existing study.

    Raises:
        InputError: the database cannot be opened, or has no such study; the message names the existing ones.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError("E-STUDY-01", uri=redacted(uri))
    study = find_study(uri, name)
    if study is None:
        names = optuna.get_all_study_names(_storage(uri))
        raise InputError("E-STUDY-02", name=name, names=", ".join(sorted(names)) or "(this database holds no study)")
    return study


def refuse_other(study: Study, identity: Identity) -> None:
    """Raises InputError if the study has another identity."""
    for key, value in vars(identity).items():
        stored = study.user_attrs.get(key, value)
        if stored != value:
            raise InputError(
                "E-STUDY-03",
                study_name=study.study_name,
                replace=key.replace("_", " "),
                there=stored[:12],
                value=value[:12],
            )


def _storage(uri: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    arguments: dict[str, Any] = {}
    if not uri.startswith("sqlite"):  # a server may be down, or have restarted
        arguments = {"connect_args": {"connect_timeout": CONNECT_S}, "pool_pre_ping": True}
    return RDBStorage(uri, engine_kwargs=arguments)


@contextmanager
def database_errors(uri: str) -> Iterator[None]:
    """Raises InputError where opening the database fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError("E-STUDY-04", uri=redacted(uri), error=error) from None
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise InputError("E-STUDY-05", uri=redacted(uri), splitlines=str(error).splitlines()[0]) from None


def first_attempt_of(trial: FrozenTrial | Trial) -> int:
    """Returns the number of the first attempt of a trial, which identifies its checkpoints and its MLflow run."""
    return int(trial.user_attrs.get("root", trial.number))


def state_of(trial: FrozenTrial) -> str:
    """Returns complete, pruned, running, waiting, or the kind of failure."""
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get("failure", "infrastructure")
    return trial.state.name.lower()


def is_finished(trial: FrozenTrial) -> bool:
    """Returns whether a trial is complete, pruned, or failed for a reason of its own."""
    return state_of(trial) in ("complete", "pruned", *FINAL_FAILURES)


def finished(study: Study) -> list[FrozenTrial]:
    """Returns all finished trials."""
    return [trial for trial in study.get_trials(deepcopy=False) if is_finished(trial)]


def queued(study: Study) -> list[dict[str, Any]]:
    """Returns the settings of all queued trials."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [dict(trial.system_attrs.get("fixed_params", {})) for trial in waiting]


def is_feasible(trial: FrozenTrial) -> bool:
    """Returns whether a trial keeps every constraint."""
    return all(excess <= 0 for excess in trial.constraints.values())


def front(study: Study) -> list[FrozenTrial]:
    """Returns the Pareto front of the trials that keep the constraints, the best in the first goal first.

    With one goal it is the best trial, complete or pruned: its value is that of its best epoch, which was kept.
    """
    maximize = study.directions[0] == StudyDirection.MAXIMIZE
    if len(study.directions) > 1:
        scored = [trial for trial in study.best_trials if is_feasible(trial)]
    else:
        scored = [trial for trial in finished(study) if trial.values and is_feasible(trial)]
    ordered = sorted(scored, key=lambda trial: trial.values[0], reverse=maximize)
    return ordered if len(study.directions) > 1 else ordered[:1]


def frozen(study: Study, number: int) -> FrozenTrial:
    """Returns a trial as the database holds it now."""
    return study.get_trials(deepcopy=False)[number]


def best_trial(study: Study) -> tuple[FrozenTrial, float] | None:
    """Returns the first trial of the front and its value in the first goal; None if the front is empty."""
    trials = front(study)
    return (trials[0], trials[0].values[0]) if trials else None


def fail(study: Study, trial: FrozenTrial, kind: str, reason: str) -> None:
    """Ends a running trial as failed, and queues it again if it did not cause the failure.

    A failure in `UNCHARGED` may occur any number of times; any other is repeated at most `MAX_RETRIES` times.
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
    """Queues again the trials that a dead driver left running; returns their first attempts."""
    left = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING]
    for trial in left:
        fail(study, trial, "interrupted", "the driver ended while the trial was running")
    return [first_attempt_of(trial) for trial in left]


def _repeat(study: Study, trial: FrozenTrial, kind: str, reason: str, *, retries: int) -> None:
    """Queues the next attempt before it ends this one, so that a crash in between does not lose the trial."""
    if all(other.user_attrs.get("retry_of") != trial.number for other in study.get_trials(deepcopy=False)):
        queue_again(study, trial, retries=retries)
    _end(study, trial, kind, reason)


def queue_again(study: Study, trial: FrozenTrial, *, retries: int) -> None:
    """Queues the next attempt of a trial, with the same settings, even if the trial never began."""
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
    """Returns the number of trials in each state."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[state_of(trial)] = counts.get(state_of(trial), 0) + 1
    return counts
