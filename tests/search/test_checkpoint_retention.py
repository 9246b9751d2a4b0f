"""The checkpoints that a study keeps and deletes."""

from pathlib import Path

import pytest

from medgan.config import Config
from medgan.distributed.resources import Resources
from medgan.search.checkpoint_retention import Retention
from medgan.search.objectives import Goal
from medgan.search.space import Checkpoints
from medgan.search.study import Identity, fail, open_study, recover
from medgan.search.trial import Assignment
from medgan.training.checkpoint import BEST, LAST

SSIM, PARAMETERS = Goal("val/ssim", "max"), Goal("cost/parameters", "min")


@pytest.fixture
def assignment(tmp_path):
    def make(first_attempt):
        folder = tmp_path / f"{first_attempt:04d}"
        folder.mkdir()
        for name in (LAST, BEST):
            (folder / name).write_bytes(b"w" * 1000)
        return Assignment(first_attempt, first_attempt, Config(), (SSIM,), "data", str(folder), Resources(2), "scratch")

    return make


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"))


def finish(study, *values):
    trial = study.ask({})
    trial.set_user_attr("metrics", {"val/ssim": values[0]})
    study.tell(trial.number, list(values))


def existing(trials, name):
    return [(Path(trial.folder) / name).exists() for trial in trials]


def test_retention_keeps_best_generators_and_running_trials(assignment, study, tmp_path):
    retention = Retention(study, tmp_path, Checkpoints(keep=2))
    trials = [assignment(number) for number in range(5)]
    for trial, value in zip(trials[:4], (0.4, 0.6, 0.3, 0.5), strict=True):
        finish(study, value)
        retention.ended(trial.first_attempt)
    assert existing(trials, BEST) == [False, True, False, True, True]
    assert existing(trials, LAST) == [False, False, False, False, True]


def test_retention_keeps_whole_pareto_front_of_several_goals(assignment, tmp_path):
    goals = (SSIM, PARAMETERS)
    several = open_study(f"sqlite:///{tmp_path / 'several.db'}", "s", Identity("pet2ct", "a", "b"), goals=goals)
    retention = Retention(several, tmp_path, Checkpoints(keep=1))
    trials = [assignment(number) for number in range(4)]
    for trial, values in zip(trials, ((0.4, 1.0), (0.6, 3.0), (0.3, 2.0), (0.5, 2.0)), strict=True):
        finish(several, *values)
        retention.ended(trial.first_attempt)
    assert existing(trials, BEST) == [True, True, False, True]


def test_retention_over_byte_limit_deletes_worst_but_never_best(assignment, study, tmp_path):
    warnings, folder = [], tmp_path / "checkpoints"
    rules = Checkpoints(keep=3, max_gb=25e-7)  # two generators, and the checkpoints of a running trial
    retention = Retention(study, folder, rules, warnings.append)
    folder.mkdir()
    trials = [assignment(number) for number in range(3)]
    for trial in trials:
        Path(trial.folder).rename(folder / Path(trial.folder).name)
    for trial, value in zip(trials, (0.4, 0.6, 0.5), strict=True):
        finish(study, value)
        retention.ended(trial.first_attempt)
    assert [(folder / f"{number:04d}" / BEST).exists() for number in range(3)] == [False, True, True]
    retention.rules = Checkpoints(keep=3, max_gb=1e-7)
    retention.ended(2)
    assert [(folder / f"{number:04d}" / BEST).exists() for number in range(3)] == [False, True, False]
    assert warnings == ["checkpoints: more than 2.5e-06 GB although only the best and running ones stay"], "warns once"


def test_retention_keeps_checkpoint_of_interrupted_trial(assignment, study, tmp_path):
    study.ask({})
    recover(study)
    trial = assignment(0)
    Retention(study, tmp_path, Checkpoints()).ended(0)
    assert existing([trial], LAST) == [True]


def test_retention_deletes_generator_of_diverged_trial(assignment, study, tmp_path):
    trials = [assignment(0), assignment(1)]
    finish(study, 0.4)
    number = study.ask({}).number
    fail(study, study.trials[number], "diverged", "nan")
    Retention(study, tmp_path, Checkpoints()).ended(1)
    assert existing(trials, BEST) == [True, False]
