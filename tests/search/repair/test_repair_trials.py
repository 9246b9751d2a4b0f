"""The repair of trials that contradict each other in the study database."""

from optuna.trial import TrialState

from medgan.search.repair import repair
from medgan.search.study import finished, first_attempt_of, state_of


def test_repair_queues_trial_that_dead_driver_left_running(stored, expect_repaired):
    trial = stored.study.ask(stored.space)
    assert first_attempt_of(trial) == 3
    expect_repaired(stored, "trial 3: attempt 4 runs in the study but no driver does, should wait to be repeated")
    assert [state_of(one) for one in stored.study.trials[3:]] == ["interrupted", "interrupted", "waiting"]
    assert finished(stored.study) == stored.study.trials[:3]


def test_repair_keeps_one_attempt_after_crash_during_recovery(stored, expect_repaired):
    trial = stored.study.ask(stored.space)
    stored.study.enqueue_trial(trial.params, user_attrs={"root": 3, "retry_of": 4, "retries": 0})
    expect_repaired(stored, "trial 3: attempt 4 runs in the study")
    assert [state_of(one) for one in stored.study.trials[3:]] == ["interrupted", "interrupted", "waiting"]


def test_repair_withdraws_second_waiting_attempt(stored, expect_repaired):
    stored.study.enqueue_trial(stored.study.trials[3].params, user_attrs={"root": 3, "retry_of": 3, "retries": 0})
    expect_repaired(stored, "trial 3: attempt 5 waits or runs in the study, so does 4, should be one")
    assert [state_of(one) for one in stored.study.trials[3:]] == ["interrupted", "waiting", "interrupted"]
    assert stored.study.trials[5].user_attrs["reason"] == "withdrawn: it doubled another attempt"


def test_repair_leaves_one_attempt_of_trial_that_runs_twice(stored, expect_repaired):
    first = stored.study.ask(stored.space)
    stored.study.enqueue_trial(first.params, user_attrs={"root": 3, "retry_of": 3, "retries": 0})
    stored.study.ask(stored.space)
    expect_repaired(stored, "trial 3: attempt 4 runs", "trial 3: attempt 5 runs")
    assert [state_of(one) for one in stored.study.trials].count("waiting") == 1


def test_repair_withdraws_waiting_attempt_of_finished_trial(stored, expect_repaired):
    stored.study.enqueue_trial(stored.study.trials[0].params, user_attrs={"root": 0, "retry_of": 0, "retries": 0})
    expect_repaired(stored, "trial 0: attempt 5 waits or runs in the study, the trial is finished")


def test_repair_queues_lost_trial_again(stored, expect_repaired):
    waiting = stored.study.trials[4]
    storage = stored.study._storage
    storage.set_trial_user_attr(waiting._trial_id, "failure", "infrastructure")
    storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
    expect_repaired(stored, "trial 3: its last attempt ended as infrastructure but no further attempt is queued")
    assert stored.study.trials[5].user_attrs == {"root": 3, "retry_of": 4, "retries": 0}
    assert stored.study.ask(stored.space).params == stored.study.trials[3].params


def test_repair_reports_trial_finished_twice_as_not_repairable(stored, lines_of):
    stored.study.enqueue_trial(stored.study.trials[1].params, user_attrs={"root": 1, "retry_of": 1})
    stored.study.ask(stored.space)
    stored.study.tell(stored.study.ask(stored.space).number, 0.1)
    lines = lines_of(repair, stored)[1]
    assert "trial 1: finished 2 times (attempts [1, 5]), should be once: cannot be repaired" in lines
    assert lines_of(repair, stored)[0] == 1
