"""The study database: the truth about every trial, whatever crashed."""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from medgan.errors import InputError
from medgan.lock import opening
from medgan.place import shown

Study = optuna.Study
"""For whoever only hands a study on."""

FINAL_FAILURES = ("diverged", "out_of_memory", "input", "error", "restarts")
"""Kinds of failure that finish a trial; any other is the infrastructure's, and the trial is tried again."""
MAX_RETRIES = 3
KEY = "key"
"""Attribute of a study: tells it from any other of the same name, in MLflow and on disk."""


@dataclass(frozen=True)
class Identity:
    """What a study is about; the same name with another identity is refused."""

    task: str
    data_digest: str
    space_digest: str

    def default_name(self) -> str:
        """Task and shortened digests."""
        return f"{self.task}-{self.data_digest[:6]}-{self.space_digest[:6]}"


def open_study(uri: str, name: str, identity: Identity, *, seed: int) -> Study:
    """The study of that name, created if there is none.

    Raises:
        InputError: the database cannot be opened, or the name belongs to a study of another task, data or space.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with opening(uri):
            study = optuna.create_study(
                storage=RDBStorage(uri), study_name=name, direction="maximize", load_if_exists=True
            )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise InputError(
            f"--study-uri {shown(uri)}: cannot open the study database: {str(error).splitlines()[0]}"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group: settings that move at times
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(study.get_trials(deepcopy=False)),  # a resumed study must not draw its first trials again
            n_startup_trials=5,
            multivariate=True,
            group=True,
        )
    if KEY not in study.user_attrs:
        study.set_user_attr(KEY, uuid.uuid4().hex[:8])
    for key, value in vars(identity).items():
        if study.user_attrs.setdefault(key, value) != value:
            raise InputError(
                f"--study {name}: exists with another {key.replace('_', ' ')} ({study.user_attrs[key][:12]}, "
                f"now {value[:12]}); choose another name"
            )
        study.set_user_attr(key, value)
    return study


def root_of(trial: FrozenTrial | Trial) -> int:
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


def best_trial(study: Study) -> tuple[FrozenTrial, float] | None:
    """The complete or pruned trial with the highest value, and the value: of its best epoch, which was kept."""
    scored = [(trial, trial.value) for trial in finished(study) if trial.value is not None]
    return max(scored, key=lambda pair: pair[1], default=None)


def fail(study: Study, trial: FrozenTrial, kind: str, reason: str) -> None:
    """Ends a running trial as failed; one that is not its own fault is put back into the queue, three times at most."""
    retries = int(trial.user_attrs.get("retries", 0))
    if kind in FINAL_FAILURES:
        _end(study, trial, kind, reason)
    elif retries < MAX_RETRIES:
        _repeat(study, trial, kind, reason, retries=retries + 1)
    else:
        _end(study, trial, "error", f"{reason}; given up after {retries} retries")


def recover(study: Study) -> list[int]:
    """Puts the trials that a dead driver left running back into the queue; returns their roots."""
    left = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING]
    for trial in left:
        reason = "the driver ended while the trial was running"
        _repeat(study, trial, "infrastructure", reason, retries=int(trial.user_attrs.get("retries", 0)))
    return [root_of(trial) for trial in left]


def _repeat(study: Study, trial: FrozenTrial, kind: str, reason: str, *, retries: int) -> None:
    """Queued before it is ended: whatever happens in between, the trial is not lost."""
    if all(other.user_attrs.get("retry_of") != trial.number for other in study.get_trials(deepcopy=False)):
        attributes = {"root": root_of(trial), "retry_of": trial.number, "retries": retries}
        study.enqueue_trial(trial.params, user_attrs=attributes)
    _end(study, trial, kind, reason)


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
