"""Keeps only the checkpoints a study still needs: of running trials all, of finished ones the best generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.trial import FrozenTrial

from medgan.logs import LOG
from medgan.search.objectives import goals_of
from medgan.search.space import Checkpoints
from medgan.search.study import Study, finished, first_attempt_of, front, is_feasible, state_of
from medgan.search.trial import trial_folder
from medgan.training.checkpoint import BEST, LAST


class Retention:
    """Deletes what no one needs any more, whenever a trial has ended and its end was told.

    Args:
        study: says which trials are finished, and which are best.
        checkpoints: the study's folder.
        rules: how many generators stay, and how many bytes at most.
        say: tells a person, once, that what runs alone takes more than the bytes allowed.
    """

    def __init__(
        self, study: Study, checkpoints: Path, rules: Checkpoints, say: Callable[[str], None] = LOG.info
    ) -> None:
        self.study, self.checkpoints, self.rules, self.say = study, checkpoints, rules, say
        self.told = {
            first_attempt for first_attempt in map(first_attempt_of, finished(study)) if self._is_told(first_attempt)
        }
        self.warned = False

    def ended(self, first_attempt: int) -> None:
        """Of this trial the last state goes, from which its end could be told again; of all, generators behind."""
        kept = kept_roots(self.study, self.rules)
        if first_attempt in {first_attempt_of(trial) for trial in finished(self.study)}:
            self._delete(first_attempt, LAST)
            self.told.add(first_attempt)
        for behind in self.told - {*kept}:
            self._delete(behind, BEST)
            self.told.discard(behind)
        while self._too_many_bytes() and len(kept) > 1:
            self._delete(kept.pop(), BEST)
        if self._too_many_bytes() and not self.warned:
            self.warned = True
            self.say(f"checkpoints: more than {self.rules.max_gb:g} GB although only the best and running ones stay")

    def _is_told(self, first_attempt: int) -> bool:
        folder = trial_folder(self.checkpoints, first_attempt)
        return (folder / BEST).exists() and not (folder / LAST).exists()

    def _too_many_bytes(self) -> bool:
        return self.rules.max_gb is not None and sum(map(_size, self.checkpoints.glob("*/*.safetensors"))) > (
            self.rules.max_gb * 1e9
        )

    def _delete(self, first_attempt: int, *names: str) -> None:
        for name in names:
            try:
                (trial_folder(self.checkpoints, first_attempt) / name).unlink(missing_ok=True)
            except OSError as error:  # storage that is away must not end a search
                LOG.warning("trial %d: %s not deleted: %s", first_attempt, name, error)


def kept_roots(study: Study, rules: Checkpoints) -> list[int]:
    """The trials whose generator stays, the most wanted first: the front, then the next best in the first goal."""
    first = goals_of(study)[0]

    def rank(trial: FrozenTrial) -> tuple[bool, float]:
        return is_feasible(trial), first.score(trial.user_attrs["metrics"])

    scored = [trial for trial in finished(study) if state_of(trial) in ("complete", "pruned")]
    ordered = [*front(study), *sorted(scored, key=rank, reverse=True)[: rules.keep]]
    return list(dict.fromkeys(first_attempt_of(trial) for trial in ordered))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # replaced just now
        return 0
