"""Keeps the checkpoints that a study still needs: all of running trials, the best generators of finished trials."""

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
    """Deletes checkpoints that are no longer needed, each time MLflow has recorded the end of a trial.

    Args:
        rules: number of generators to keep, and the limit in GB.
        say: prints one warning if the limit is exceeded although nothing more can be deleted.
    """

    def __init__(
        self, study: Study, checkpoints: Path, rules: Checkpoints, say: Callable[[str], None] = LOG.info
    ) -> None:
        self.study, self.checkpoints, self.rules, self.say = study, checkpoints, rules, say
        self.recorded = set(filter(self._is_recorded, map(first_attempt_of, finished(study))))
        self.warned = False

    def ended(self, first_attempt: int) -> None:
        """Deletes the last state of a trial that MLflow has recorded, and generators no longer among the best."""
        kept = kept_first_attempts(self.study, self.rules)
        if first_attempt in {first_attempt_of(trial) for trial in finished(self.study)}:
            self._delete(first_attempt, LAST)
            self.recorded.add(first_attempt)
        for behind in self.recorded - {*kept}:
            self._delete(behind, BEST)
            self.recorded.discard(behind)
        while self._too_many_bytes() and len(kept) > 1:
            self._delete(kept.pop(), BEST)
        if self._too_many_bytes() and not self.warned:
            self.warned = True
            self.say(f"checkpoints: more than {self.rules.max_gb:g} GB although only the best and running ones stay")

    def _is_recorded(self, first_attempt: int) -> bool:
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
            except OSError as error:  # unavailable storage must not end a search
                LOG.warning("trial %d: %s not deleted: %s", first_attempt, name, error)


def kept_first_attempts(study: Study, rules: Checkpoints) -> list[int]:
    """Returns the trials whose generators are kept, the best first: the front, then the next best by the first goal."""
    first = goals_of(study)[0]

    def rank(trial: FrozenTrial) -> tuple[bool, float]:
        return is_feasible(trial), first.score(trial.user_attrs["metrics"])

    scored = [trial for trial in finished(study) if state_of(trial) in ("complete", "pruned")]
    ordered = [*front(study), *sorted(scored, key=rank, reverse=True)[: rules.keep]]
    return list(dict.fromkeys(first_attempt_of(trial) for trial in ordered))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the file was replaced meanwhile
        return 0
