"""Weighs the settings of a study for one goal, and measures how large an importance chance alone gives."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from medgan.search.objectives import Goal
from medgan.search.study import Study

SHUFFLES = 200
PERCENT = 95
"""Gives how many of the shuffled studies have no importance above the floor."""
SHUFFLE_SEED = 0
"""Makes the floor of a study the same each time."""


@dataclass(frozen=True)
class Importances:
    """Holds how much each setting has to do with a goal, and what chance alone gives.

    Attributes:
        by_setting: setting -> importance; all of them together are 1.
        floor: importance in the same unit, which may be more than 1; see `weigh`.
    """

    by_setting: dict[str, float]
    floor: float

    @property
    def above(self) -> list[str]:
        """Returns the settings that can be told from chance, the most important first."""
        ordered = sorted(self.by_setting, key=lambda name: -self.by_setting[name])
        return [name for name in ordered if self.by_setting[name] > self.floor]


def weigh(
    trials: Sequence[FrozenTrial], values: Sequence[float], goal: Goal, *, shuffles: int = SHUFFLES
) -> Importances:
    """Returns Optuna's importances of the settings, and the floor: what the largest one reaches by chance.

    Each shuffle keeps the settings of the trials and permutes their values; the floor is the 95th percentile of the
    largest importance of each shuffle. As all settings share it, chance lifts any of them above it in about 5 % of
    studies. The floor is approximate: a search chooses later settings by earlier values, and shuffling ignores that.
    Shuffles are compared before importances are divided by their sum. Of quotients, at most one could pass a floor
    of one half, and two settings that matter would hide each other.

    Args:
        trials: complete and pruned trials; Optuna uses complete ones only, so that all are passed as such.
        values: value of the goal for each trial.
    """
    study = _study_of(trials)
    losses = np.array(values) * (-1 if goal.mode == "max" else 1)
    numbers = np.random.default_rng(SHUFFLE_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few trials with a conditional setting: the caption warns of few trials
        found = _divergences(study, losses)
        shuffled = [_divergences(study, numbers.permutation(losses)) for _ in range(shuffles)]
    floor = float(np.percentile([max(one.values(), default=0.0) for one in shuffled], PERCENT))
    total = sum(found.values()) or 1.0
    return Importances({name: divergence / total for name, divergence in found.items()}, floor / total)


def _study_of(trials: Sequence[FrozenTrial]) -> Study:
    """Returns a study in memory with the settings of the trials, numbered in order."""
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE, value=0.0, params=trial.params, distributions=trial.distributions
        )
        for trial in trials
    )
    return study


def _divergences(study: Study, losses: NDArray[np.float64]) -> dict[str, float]:
    """Returns setting -> importance by Optuna's default evaluator, not divided by their sum; losses are (n,)."""
    return optuna.importance.get_param_importances(
        study, target=lambda trial: float(losses[trial.number]), normalize=False
    )
