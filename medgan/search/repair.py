"""Finds where the three stores of a study disagree, and repairs them; the study database decides."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from optuna.trial import FrozenTrial, TrialState

from medgan.search.consistency import (
    Ending,
    Facts,
    Stores,
    add_epochs,
    add_run,
    delete_folder,
    delete_part,
    delete_run,
    delete_state,
    end_run,
    ending_of,
    epochs_of,
    facts_of,
    merge_runs,
    queue,
    recover_all,
    withdraw,
)
from medgan.search.lease import holder, is_expired, leased
from medgan.search.study import is_finished, state_of
from medgan.tracking.store import STUDY_ROOT
from medgan.training.checkpoint import BEST, LAST


@dataclass(frozen=True)
class Disagreement:
    """Describes one disagreement between the stores.

    Attributes:
        where: the trial, the study or the checkpoints.
        what: what was found, and what was expected.
        repair: repairs it and returns what was done; None: it cannot be repaired.
    """

    where: str
    what: str
    repair: Callable[[Stores], str] | None


def examine(stores: Stores, say: Callable[[str], None]) -> int:
    """Prints every disagreement as a line; returns their number."""
    name = stores.study.study_name
    driver, expired = holder(stores.uri, name), is_expired(stores.uri, name)
    facts = facts_of(stores, driver=driver, expired=expired)
    if driver:
        say(f"study {name} is being run by {driver}: its unfinished work may be listed as a disagreement")
    found = [one for check in CHECKS for one in check(facts)]
    for one in found:
        say(f"{one.where}: {one.what}{'' if one.repair else '; cannot be repaired'}")
    return len(found)


def repair(stores: Stores, say: Callable[[str], None]) -> int:
    """Repairs every disagreement and prints a line for each; returns how many cannot be repaired.

    Raises:
        InputError: a living driver holds the study.
    """
    name = stores.study.study_name
    expired = is_expired(stores.uri, name)
    with leased(stores.uri, name):
        return mend(stores, say, expired=expired)


def mend(stores: Stores, say: Callable[[str], None], *, expired: bool = False) -> int:
    """Does what `repair` does for a caller that holds the lease; each check sees the repairs of earlier checks."""
    facts, left = facts_of(stores, expired=expired), 0
    for check in CHECKS:
        found = list(check(facts))
        for one in found:
            say(f"{one.where}: {one.what}: {one.repair(stores) if one.repair else 'cannot be repaired'}")
            left += one.repair is None
        if any(one.repair for one in found):
            facts = facts_of(stores)
    return left


def _lease(facts: Facts) -> Iterator[Disagreement]:
    if facts.expired:  # `repair` has taken the lease over
        yield Disagreement("study", "held by a driver that is dead, should be held by nobody", lambda _: "given back")


def _running(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt, chain in facts.chains.items():
        for trial in chain:
            if trial.state == TrialState.RUNNING and not facts.driver:
                what = f"attempt {trial.number} runs in the study but no driver does, should wait to be repeated"
                yield Disagreement(f"trial {first_attempt}", what, recover_all)


def _doubled(facts: Facts) -> Iterator[Disagreement]:
    """Finds superfluous attempts, such as one whose retry was queued before its driver died."""
    for first_attempt, chain in facts.chains.items():
        repeated = {trial.user_attrs.get("retry_of") for trial in chain}
        going = [one for one in chain if not one.state.is_finished() and one.number not in repeated]
        ended = any(is_finished(trial) for trial in chain)
        going.sort(key=lambda one: (one.state != TrialState.RUNNING, one.number))
        for extra in going if ended else going[1:]:
            other = "the trial is finished" if ended else f"so does {going[0].number}, should be one"
            what = f"attempt {extra.number} waits or runs in the study, {other}"
            yield Disagreement(f"trial {first_attempt}", what, partial(withdraw, trial=extra))


def _lost(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt, chain in facts.chains.items():
        if all(trial.state.is_finished() and not is_finished(trial) for trial in chain):
            what = f"its last attempt ended as {state_of(chain[-1])} but no further attempt is queued"
            yield Disagreement(f"trial {first_attempt}", what, partial(queue, trial=chain[-1]))


def _finished_twice(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt, chain in facts.chains.items():
        ended = [trial.number for trial in chain if is_finished(trial)]
        if len(ended) > 1:
            yield Disagreement(
                f"trial {first_attempt}", f"finished {len(ended)} times (attempts {ended}), should be once", None
            )


def _runs_doubled(facts: Facts) -> Iterator[Disagreement]:
    for run in facts.runs:
        best = facts.run_of(run.first_attempt)
        if best is not None and best != run:
            what = f"MLflow has another run {run.run_id} of {len(run.epochs)} epochs, should have one"
            yield Disagreement(_where(run.first_attempt), what, partial(merge_runs, run=run, into=best))


def _runs_unknown(facts: Facts) -> Iterator[Disagreement]:
    known = {STUDY_ROOT, *map(str, facts.chains)}
    for run in facts.runs:
        if run.first_attempt not in known:
            what = f"MLflow has a run {run.run_id}, but the study has no such trial"
            yield Disagreement(_where(run.first_attempt), what, partial(delete_run, run=run))


def _study_run(facts: Facts) -> Iterator[Disagreement]:
    run = facts.run_of(STUDY_ROOT)
    if run is None:
        yield Disagreement("study", "MLflow has no run of it, should have one", None)
    elif run.status == "RUNNING" and not facts.driver:
        ended = Ending("", "KILLED")
        what = "MLflow says RUNNING but no driver runs it, should be KILLED"
        yield Disagreement("study", what, partial(end_run, run=run, ending=ended))


def _run_missing(facts: Facts) -> Iterator[Disagreement]:
    beside = facts.run_of(STUDY_ROOT)
    for first_attempt, chain in facts.chains.items():
        ended = next(filter(is_finished, chain), None)
        if ended is not None and beside is not None and facts.run_of(first_attempt) is None:
            what = f"{state_of(ended)} in the study, MLflow has no run of it"
            yield Disagreement(
                f"trial {first_attempt}", what, partial(add_run, trial=ended, beside=beside, goals=facts.goals)
            )


def _run_ending(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt, chain in facts.chains.items():
        run, ending = facts.run_of(first_attempt), _ending(chain, facts.driver)
        if run is not None and ending is not None and (run.state, run.status) != ending:
            what = f"MLflow says {run.state or 'no state'} ({run.status}), should be {ending.state} ({ending.status})"
            yield Disagreement(f"trial {first_attempt}", what, partial(end_run, run=run, ending=ending))


def _epochs_missing(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt, chain in facts.chains.items():
        run, ended = facts.run_of(first_attempt), next(filter(is_finished, chain), None)
        if run is None or ended is None:
            continue
        known = epochs_of(ended, facts.goals)
        if missing := sorted(set(known) - run.epochs):
            what = f"MLflow lacks {len(missing)} of its {len(known)} epochs: {', '.join(map(str, missing))}"
            values = {epoch: known[epoch] for epoch in missing}
            yield Disagreement(f"trial {first_attempt}", what, partial(add_epochs, run=run, epochs=values))


def _generator_missing(facts: Facts) -> Iterator[Disagreement]:
    """Finds a missing generator of the best trial; those of other trials may be deleted to save disk space."""
    if facts.best is not None and BEST not in facts.folders.get(facts.best, ()):
        yield Disagreement(f"trial {facts.best}", f"the best, should have {BEST} but has none", None)


def _state_left(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt, names in facts.folders.items():
        if LAST in names and any(is_finished(trial) for trial in facts.chains.get(first_attempt, ())):
            what = f"has {LAST} but is finished, should have none"
            yield Disagreement(f"trial {first_attempt}", what, partial(delete_state, first_attempt=first_attempt))


def _folder_unknown(facts: Facts) -> Iterator[Disagreement]:
    for first_attempt in facts.folders:
        if first_attempt not in facts.chains:
            what = "has a checkpoint folder, but the study has no such trial"
            yield Disagreement(f"trial {first_attempt}", what, partial(delete_folder, first_attempt=first_attempt))


def _part(facts: Facts) -> Iterator[Disagreement]:
    for part in () if facts.driver else facts.parts:
        yield Disagreement("checkpoints", f"{part} was never finished", partial(delete_part, part=part))


def _ending(chain: Sequence[FrozenTrial], driver: str) -> Ending | None:
    """Returns how the run of a trial should end, by the attempt that finished it, else by the last that began."""
    begun = [trial for trial in chain if trial.state != TrialState.WAITING]
    if not begun:
        return None
    decisive = next(filter(is_finished, begun), begun[-1])
    if driver and decisive.state == TrialState.RUNNING:
        return Ending("running", "RUNNING")
    return ending_of(decisive)


def _where(first_attempt: str) -> str:
    return f"trial {first_attempt}" if first_attempt.isdigit() else "study"


CHECKS: tuple[Callable[[Facts], Iterator[Disagreement]], ...] = (
    _lease, _running, _doubled, _lost, _finished_twice,
    _runs_doubled, _runs_unknown, _study_run, _run_missing, _run_ending, _epochs_missing,
    _generator_missing, _state_left, _folder_unknown, _part,
)  # fmt: skip
"""The checks, in the order of repair: first the study database, then the stores that have to agree with it."""
