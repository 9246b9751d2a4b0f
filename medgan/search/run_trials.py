"""Runs the missing trials of a study with Ray Tune, and reports every epoch to the listeners."""

import signal
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from medgan.config import Config
from medgan.distributed.resources import Resources
from medgan.errors import JobError
from medgan.search.budget import Meter
from medgan.search.searcher import StudySearcher
from medgan.search.space import METHOD, Scheduler, Space
from medgan.search.study import finished, first_attempt_of, frozen, state_of
from medgan.search.trial import Assignment, TuneTrial, so_far, trial_folder
from medgan.training.checkpoint import read_history


class Listener(Protocol):
    """Receives the events of the trials, in the driver."""

    def started(self, assignment: Assignment) -> None: ...

    def epoch(self, assignment: Assignment, result: dict[str, Any]) -> None: ...

    def refused(self, number: int, reason: str) -> None:
        """Receives a trial that never started, since its settings are incompatible."""

    def ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        """Receives `result["state"]` from the study: complete, pruned (stopped early), or the kind of failure."""


@dataclass(frozen=True)
class SearchJob:
    """Holds everything that is fixed in a search.

    Attributes:
        dataset: state of the prepared data set, see `PreparedDataset.state`.
        checkpoints: checkpoint folder of the study, with one folder for each trial.
        scratch: folder for Ray's own files.
    """

    space: Space
    base: Config
    dataset: Path
    checkpoints: Path
    scratch: Path
    resources: Resources
    concurrent: int
    target: int

    def assign(self, trial: Trial) -> Assignment:
        """Samples a trial's parameters and returns what it needs to run; raises InputError if they are incompatible."""
        return self.assignment(trial, self.space.draw(trial, self.base))

    def assignment(self, trial: Trial | FrozenTrial, config: Config) -> Assignment:
        """Returns the assignment of a trial with this configuration."""
        return Assignment(
            number=trial.number,
            first_attempt=first_attempt_of(trial),
            config=config,
            goals=self.space.goals,
            dataset=str(self.dataset),
            folder=str(trial_folder(self.checkpoints, first_attempt_of(trial))),
            resources=self.resources,
            storage=str(self.scratch),
            method=trial.params.get(METHOD, ""),
        )


def run_search(job: SearchJob, study: optuna.Study, meter: Meter, listeners: Sequence[Listener]) -> None:
    """Runs trials until the study holds `job.target` finished ones, or its budget is used up; needs a running Ray.

    Raises:
        JobError: the study database failed to store how a trial ended.
    """
    forward = _Forward(listeners, study)
    searcher = StudySearcher(
        study,
        target=job.target,
        assign=lambda trial: {"assignment": job.assign(trial)},
        meter=meter,
        constraints=job.space.limits,
        refused=forward.refused,
    )
    tuner = tune.Tuner(
        tune.with_resources(TuneTrial, {"memory": 256 << 20}),  # the actor only waits; its worker group computes
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=scheduler_of(job.space.scheduler, job.base.train.epochs),
            num_samples=-1,
            max_concurrent_trials=job.concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name=f"search-{uuid.uuid4().hex[:12]}",
            storage_path=str(job.scratch),
            verbose=0,
            stop=lambda trial_id, result: bool(meter.used_up()),  # each running trial ends its epoch
            failure_config=FailureConfig(max_failures=0),  # the study repeats lost trials, and counts them
            callbacks=[forward],
        ),
    )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    except Exception as error:
        if searcher.fault:
            raise JobError("E-SEARCH-01", fault=searcher.fault) from error
        raise
    finally:
        signal.signal(signal.SIGINT, interrupt)  # Tune's own handler stays otherwise, and ignores the first Ctrl-C
    if searcher.fault:
        raise JobError("E-SEARCH-01", fault=searcher.fault)


def retell(job: SearchJob, study: optuna.Study, listener: Listener) -> None:
    """Reports finished trials to the listener that a dead driver did not: their folders still hold the last state."""
    for trial in finished(study):
        history = read_history(trial_folder(job.checkpoints, first_attempt_of(trial)))
        if not history or state_of(trial) == "input":  # its epochs lack a goal's metric; the repair adds the run
            continue
        assignment = job.assignment(trial, job.space.configured(trial.params, job.base))
        listener.started(assignment)
        for epoch in range(1, len(history) + 1):
            progress = so_far(history[:epoch], assignment.goals, job.resources.devices)
            listener.epoch(assignment, {"state": "running", "epoch": epoch, "events": [], **progress})
        listener.ended(assignment, {"state": state_of(trial), "reason": trial.user_attrs.get("reason", "")})


def scheduler_of(scheduler: Scheduler, epochs: int) -> TrialScheduler:
    """Returns Ray Tune's scheduler, which compares the first goal's best value so far."""
    watched: dict[str, Any] = {"time_attr": "epoch", "metric": "objective", "mode": "max"}
    grace = min(scheduler.grace_epochs, epochs)
    if scheduler.kind == "asha":
        return ASHAScheduler(**watched, max_t=epochs, grace_period=grace, reduction_factor=scheduler.reduction_factor)
    if scheduler.kind == "median":
        return MedianStoppingRule(**watched, grace_period=grace, min_samples_required=2)
    return FIFOScheduler()


class _Forward(Callback):
    """Forwards Ray Tune's callbacks to the listeners."""

    def __init__(self, listeners: Sequence[Listener], study: optuna.Study) -> None:
        self.listeners, self.study = listeners, study
        self.started: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune's snapshots are never restored

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._started(trial.config["assignment"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._forward(lambda listener: listener.epoch(trial.config["assignment"], result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial.config["assignment"], trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial.config["assignment"], {})

    def _started(self, assignment: Assignment) -> None:
        self.started.add(assignment.number)
        self._forward(lambda listener: listener.started(assignment))

    def _ended(self, assignment: Assignment, result: dict[str, Any]) -> None:
        """Forwards the state that the searcher has just stored in the study; does nothing if storing it failed."""
        stored = frozen(self.study, assignment.number)
        if stored.state == TrialState.RUNNING:
            return
        if assignment.number not in self.started:  # its actor died before the trial began
            self._started(assignment)
        ending = {**result, "state": state_of(stored), "reason": stored.user_attrs.get("reason", "")}
        self._forward(lambda listener: listener.ended(assignment, ending))

    def refused(self, number: int, reason: str) -> None:
        """Forwards a trial that never started; the searcher calls this."""
        self._forward(lambda listener: listener.refused(number, reason))

    def _forward(self, call: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            call(listener)
