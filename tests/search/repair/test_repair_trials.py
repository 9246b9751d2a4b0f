"""The doctor on what disagrees among the trials of the study."""

from optuna.trial import TrialState

from medgan.search.repair import repair
from medgan.search.study import finished, first_attempt_of, state_of


def test_repair_queues_trial_that_dead_driver_left_running(there, expect_mended):
    trial = there.study.ask(there.space)
    assert first_attempt_of(trial) == 3
    expect_mended(there, "trial 3: attempt 4 runs in the study but no driver does, should wait to be repeated")
    assert [state_of(one) for one in there.study.trials[3:]] == ["interrupted", "interrupted", "waiting"]
    assert finished(there.study) == there.study.trials[:3]


def test_repair_keeps_one_attempt_after_crash_during_recovery(there, expect_mended):
    trial = there.study.ask(there.space)
    there.study.enqueue_trial(trial.params, user_attrs={"root": 3, "retry_of": 4, "retries": 0})
    expect_mended(there, "trial 3: attempt 4 runs in the study")
    assert [state_of(one) for one in there.study.trials[3:]] == ["interrupted", "interrupted", "waiting"]


def test_repair_withdraws_second_waiting_attempt(there, expect_mended):
    there.study.enqueue_trial(there.study.trials[3].params, user_attrs={"root": 3, "retry_of": 3, "retries": 0})
    expect_mended(there, "trial 3: attempt 5 waits or runs in the study, so does 4, should be one")
    assert [state_of(one) for one in there.study.trials[3:]] == ["interrupted", "waiting", "interrupted"]
    assert there.study.trials[5].user_attrs["reason"] == "withdrawn: it doubled another attempt"


def test_repair_leaves_one_attempt_of_trial_that_runs_twice(there, expect_mended):
    first = there.study.ask(there.space)
    there.study.enqueue_trial(first.params, user_attrs={"root": 3, "retry_of": 3, "retries": 0})
    there.study.ask(there.space)
    expect_mended(there, "trial 3: attempt 4 runs", "trial 3: attempt 5 runs")
    assert [state_of(one) for one in there.study.trials].count("waiting") == 1


def test_repair_withdraws_waiting_attempt_of_finished_trial(there, expect_mended):
    there.study.enqueue_trial(there.study.trials[0].params, user_attrs={"root": 0, "retry_of": 0, "retries": 0})
    expect_mended(there, "trial 0: attempt 5 waits or runs in the study, the trial is finished")


def test_repair_queues_lost_trial_again(there, expect_mended):
    waiting = there.study.trials[4]
    storage = there.study._storage
    storage.set_trial_user_attr(waiting._trial_id, "failure", "infrastructure")
    storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
    expect_mended(there, "trial 3: its last attempt ended as infrastructure and none waits, one should")
    assert there.study.trials[5].user_attrs == {"root": 3, "retry_of": 4, "retries": 0}
    assert there.study.ask(there.space).params == there.study.trials[3].params


def test_repair_reports_trial_finished_twice_as_not_repairable(there, said_by):
    there.study.enqueue_trial(there.study.trials[1].params, user_attrs={"root": 1, "retry_of": 1})
    there.study.ask(there.space)
    there.study.tell(there.study.ask(there.space).number, 0.1)
    said = said_by(repair, there)[1]
    assert "trial 1: finished 2 times (attempts [1, 5]), should be once: cannot be mended" in said
    assert said_by(repair, there)[0] == 1
