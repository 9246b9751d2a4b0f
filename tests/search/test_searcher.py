"""The searcher tells Optuna honestly how trials ended, which OptunaSearch as shipped does not."""

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from medgan.errors import InputError
from medgan.search.searcher import StudySearcher
from medgan.search.study import Identity, open_study, state_of


def assign(trial):
    trial.suggest_float("optim.generator_lr", 1e-4, 1e-2, log=True)
    return {"number": trial.number}


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"), seed=0)


@pytest.fixture
def searcher(study):
    return StudySearcher(study, target=2, assign=assign)


def result(epoch, objective, state="running", reason=""):
    return {"epoch": epoch, "objective": objective, "state": state, "reason": reason}


def test_a_complete_trial_is_complete_with_its_value(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_result("t", result(1, 0.3))
    searcher.on_trial_complete("t", result(2, 0.5, "complete"))
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.5, {1: 0.3, 2: 0.5})


def test_a_trial_the_scheduler_stopped_is_pruned_with_its_intermediate_values(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_result("t", result(1, 0.3))
    searcher.on_trial_complete("t", result(2, 0.4))
    (trial,) = study.trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.3, 2: 0.4})


def test_a_diverged_trial_is_failed_with_the_reason_and_not_left_running(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"epoch": 0, "state": "diverged", "reason": "loss is nan"})
    (trial,) = study.trials
    assert (state_of(trial), trial.user_attrs["reason"]) == ("diverged", "loss is nan")


def test_a_lost_actor_puts_the_trial_back_into_the_queue(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_complete("t", None, error=True)
    assert [state_of(trial) for trial in study.trials] == ["infrastructure", "waiting"]
    assert searcher.suggest("u") == {"number": 1}


def test_replayed_epochs_are_reported_once(study, searcher):
    searcher.suggest("t")
    for objective in (0.3, 0.9):
        searcher.on_trial_result("t", result(1, objective))
    searcher.on_trial_complete("t", result(2, 0.5, "complete"))
    assert study.trials[0].intermediate_values == {1: 0.3, 2: 0.5}


def test_no_more_trials_than_wanted_are_handed_out(searcher):
    assert searcher.suggest("t") is not None
    assert searcher.suggest("u") is not None
    assert searcher.suggest("v") is None
    searcher.on_trial_complete("t", result(1, 0.5, "complete"))
    assert searcher.suggest("v") is None
    searcher.on_trial_complete("u", result(1, 0.5, "complete"))
    assert searcher.suggest("v") == Searcher.FINISHED


def test_a_failed_last_trial_is_repeated_before_the_search_ends(searcher):
    searcher.suggest("t")
    searcher.on_trial_complete("t", result(1, 0.5, "complete"))
    searcher.suggest("u")
    searcher.on_trial_complete("u", None, error=True)
    assert searcher.suggest("v") == {"number": 2}


def test_settings_that_do_not_go_together_are_failed_by_name_and_the_next_are_drawn(study):
    def picky(trial):
        if assign(trial)["number"] == 0:
            raise InputError("discriminator.patch 34 is larger than data.size 32")
        return {"number": trial.number}

    heard = []
    searcher = StudySearcher(study, target=2, assign=picky, refused=lambda *told: heard.append(told))
    assert searcher.suggest("t") == {"number": 1}
    failed = study.trials[0]
    assert (state_of(failed), failed.user_attrs["reason"]) == (
        "input",
        "discriminator.patch 34 is larger than data.size 32",
    )
    assert heard == [(0, "discriminator.patch 34 is larger than data.size 32")]
    assert searcher.suggest("u") is None, "the failed one counts"
