"""The study database: identity, states, recovery; on a real SQLite file."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from refusal import refusal

from medgan.errors import InputError
from medgan.search.study import (
    Identity,
    best_trial,
    fail,
    finished,
    first_attempt_of,
    open_study,
    recover,
    state_of,
    summary,
)

SPACE = {"optim.generator_lr": FloatDistribution(1e-4, 1e-2, log=True)}
IDENTITY = Identity("pet2ct", "a" * 64, "b" * 64)


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", IDENTITY, seed=0)


def test_identity_default_name_is_task_and_short_digests():
    assert IDENTITY.default_name() == "pet2ct-aaaaaa-bbbbbb"


def test_open_study_with_same_identity_opens_same_study(study, tmp_path):
    study.tell(study.ask(SPACE).number, 0.5)
    again = open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", IDENTITY, seed=0)
    assert len(finished(again)) == 1


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            Identity("mr_motion", "a" * 64, "b" * 64),
            refusal("E-STUDY-03", study_name="s", replace="task", there="pet2ct", value="mr_motion"),
        ),
        (
            Identity("pet2ct", "c" * 64, "b" * 64),
            refusal("E-STUDY-03", study_name="s", replace="data digest", there="a" * 12, value="c" * 12),
        ),
        (
            Identity("pet2ct", "a" * 64, "c" * 64),
            refusal("E-STUDY-03", study_name="s", replace="space digest", there="b" * 12, value="c" * 12),
        ),
    ],
)
def test_open_study_refuses_other_identity_under_same_name(study, tmp_path, other, expected):
    with pytest.raises(InputError, check=expected):
        open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", other, seed=0)


def test_open_study_refuses_unreachable_database():
    uri = "sqlite:////no/such/folder/study.db"
    with pytest.raises(InputError, check=refusal("E-STUDY-05", uri=uri)):
        open_study(uri, "s", IDENTITY, seed=0)


def test_diverged_trial_is_finished_with_reason(study):
    trial = study.ask(SPACE)
    fail(study, study.trials[trial.number], "diverged", "loss is nan")
    (frozen,) = study.trials
    assert (frozen.state, state_of(frozen), frozen.user_attrs["reason"]) == (TrialState.FAIL, "diverged", "loss is nan")
    assert len(finished(study)) == 1


def test_interrupted_trial_is_repeated_with_parameters_and_first_attempt(study):
    first = study.ask(SPACE)
    assert recover(study) == [0]
    assert finished(study) == []
    again = study.ask(SPACE)
    assert again.params == first.params
    assert (first_attempt_of(again), again.user_attrs["retry_of"]) == (0, 0)


def test_interrupted_retry_keeps_first_attempt(study):
    study.ask(SPACE)
    recover(study)
    study.ask(SPACE)
    assert recover(study) == [0]
    assert first_attempt_of(study.ask(SPACE)) == 0


def test_trial_lost_four_times_is_given_up(study):
    for _ in range(4):
        trial = study.ask(SPACE)
        fail(study, study.trials[trial.number], "infrastructure", "lost")
    assert summary(study.trials) == {"infrastructure": 3, "error": 1}
    assert "given up after 3 retries" in study.trials[-1].user_attrs["reason"]


def test_interruption_of_driver_is_not_counted_as_retry(study):
    for _ in range(6):
        study.ask(SPACE)
        recover(study)
    assert summary(study.trials) == {"interrupted": 6, "waiting": 1}


def test_recover_after_crash_during_recovery_queues_trial_once(study):
    trial = study.ask(SPACE)
    study.enqueue_trial(trial.params, user_attrs={"root": 0, "retry_of": 0})
    recover(study)
    assert summary(study.trials) == {"interrupted": 1, "waiting": 1}


def test_recover_keeps_parameters_of_retry_that_never_began(study):
    first = study.ask(SPACE)
    recover(study)
    study.ask()
    recover(study)
    assert study.ask(SPACE).params == first.params


def test_resumed_study_does_not_draw_first_trials_again(study, tmp_path):
    first = study.ask(SPACE)
    study.tell(first.number, 0.5)
    again = open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", IDENTITY, seed=0)
    assert again.ask(SPACE).params != first.params


def test_best_trial_may_be_stopped_trial(study):
    study.tell(study.ask(SPACE).number, 0.4)
    stopped = study.ask(SPACE)
    stopped.report(0.6, 1)
    study.tell(stopped.number, state=TrialState.PRUNED)
    trial, value = best_trial(study)
    assert (trial.number, value) == (stopped.number, 0.6)


def test_best_trial_of_study_without_results_is_none(study):
    trial = study.ask(SPACE)
    fail(study, study.trials[trial.number], "diverged", "nan")
    assert best_trial(study) is None


def test_open_study_silences_optuna(study):
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
