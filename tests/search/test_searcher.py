"""The searcher stores in Optuna how each trial really ended, which OptunaSearch of Ray Tune does not."""

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from medgan.distributed.resources import Resources
from medgan.errors import InputError
from medgan.search.budget import Meter
from medgan.search.objectives import Constraint, Goal
from medgan.search.searcher import StudySearcher
from medgan.search.space import Budget
from medgan.search.study import Identity, best_trial, front, open_study, recover, state_of


def assign(trial):
    trial.suggest_float("optim.generator_lr", 1e-4, 1e-2, log=True)
    return {"number": trial.number}


@pytest.fixture
def study(tmp_path):
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "s", Identity("pet2ct", "a", "b"), seed=0)


@pytest.fixture
def searcher(study):
    return StudySearcher(study, target=2, assign=assign, meter=meter_of(study))


def meter_of(study, clock=lambda: 0.0, **limits):
    return Meter(study, Budget(**limits), Resources(2), clock)


def result(epoch, *values, state="running", reason="", **metrics):
    best = [*zip(("val/ssim", "cost/parameters"), values, strict=False), *metrics.items()]
    return {
        "epoch": epoch,
        "values": list(values),
        "now": list(values),
        "best": best,
        "shares": [("style", 0.25), ("l1", 0.75)],
        "trained_s": 360.0 * epoch,
        "state": state,
        "reason": reason,
    }


def test_searcher_stores_complete_trial_with_value(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_result("t", result(1, 0.3))
    searcher.on_trial_complete("t", result(2, 0.5, state="complete"))
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.5, {1: 0.3, 2: 0.5})


def test_searcher_stores_shares_of_gradient_of_every_epoch(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_result("t", result(1, 0.3))
    searcher.on_trial_complete("t", result(2, 0.5, state="complete"))
    (trial,) = study.trials
    assert trial.user_attrs["shares"] == dict.fromkeys(("1", "2"), {"style": 0.25, "l1": 0.75})


def test_searcher_stores_stopped_trial_as_pruned_with_epoch_values(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_result("t", result(1, 0.3))
    searcher.on_trial_complete("t", result(2, 0.4))
    (trial,) = study.trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.3, 2: 0.4})


def test_searcher_stores_diverged_trial_as_failed_with_reason(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"epoch": 0, "state": "diverged", "reason": "loss is nan"})
    (trial,) = study.trials
    assert (state_of(trial), trial.user_attrs["reason"]) == ("diverged", "loss is nan")


def test_searcher_queues_trial_again_after_lost_actor(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_complete("t", None, error=True)
    assert [state_of(trial) for trial in study.trials] == ["infrastructure", "waiting"]
    assert searcher.suggest("u") == {"number": 1}


def test_searcher_ends_search_when_database_cannot_store_end_of_trial(study, searcher, monkeypatch):
    searcher.suggest("t")
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", lambda *given, **more: (_ for _ in ()).throw(OSError("the server is away\nnow")))
        searcher.on_trial_complete("t", result(4, 0.5, state="complete"))
    searcher.on_trial_complete("t", None, error=True)  # Tune calls this next
    assert searcher.fault == "the server is away"
    assert searcher.suggest("u") == Searcher.FINISHED
    assert [state_of(trial) for trial in study.trials] == ["running"]
    recover(study)
    assert [state_of(trial) for trial in study.trials] == ["interrupted", "waiting"]


def test_searcher_reports_replayed_epochs_once(study, searcher):
    searcher.suggest("t")
    for objective in (0.3, 0.9):
        searcher.on_trial_result("t", result(1, objective))
    searcher.on_trial_complete("t", result(2, 0.5, state="complete"))
    assert study.trials[0].intermediate_values == {1: 0.3, 2: 0.5}


def test_searcher_starts_no_more_trials_than_target(searcher):
    assert searcher.suggest("t") is not None
    assert searcher.suggest("u") is not None
    assert searcher.suggest("v") is None
    searcher.on_trial_complete("t", result(1, 0.5, state="complete"))
    assert searcher.suggest("v") is None
    searcher.on_trial_complete("u", result(1, 0.5, state="complete"))
    assert searcher.suggest("v") == Searcher.FINISHED


def test_searcher_repeats_failed_last_trial_before_search_ends(searcher):
    searcher.suggest("t")
    searcher.on_trial_complete("t", result(1, 0.5, state="complete"))
    searcher.suggest("u")
    searcher.on_trial_complete("u", None, error=True)
    assert searcher.suggest("v") == {"number": 2}


def test_searcher_fails_incompatible_settings_and_draws_next_trial(study):
    def refuse_first(trial):
        if assign(trial)["number"] == 0:
            raise InputError("discriminator.patch 34 is larger than data.size 32")
        return {"number": trial.number}

    refused = []
    searcher = StudySearcher(
        study, target=2, assign=refuse_first, meter=meter_of(study), refused=lambda *given: refused.append(given)
    )
    assert searcher.suggest("t") == {"number": 1}
    failed = study.trials[0]
    assert (state_of(failed), failed.user_attrs["reason"]) == (
        "input",
        "discriminator.patch 34 is larger than data.size 32",
    )
    assert refused == [(0, "discriminator.patch 34 is larger than data.size 32")]
    assert searcher.suggest("u") is None, "the failed trial counts as finished"


def test_searcher_stores_epoch_values_and_metrics_of_best_epoch(study, searcher):
    searcher.suggest("t")
    searcher.on_trial_result("t", result(1, 0.3))
    searcher.on_trial_complete("t", result(2, 0.5, state="complete"))
    kept = study.trials[0].user_attrs
    assert (kept["epochs"], kept["metrics"]) == ({"1": [0.3], "2": [0.5]}, {"val/ssim": 0.5})


@pytest.mark.parametrize("state", ["complete", "running"])
def test_searcher_stores_constraints_of_complete_and_stopped_trials(study, state):
    limit = Constraint.read("val/mae_hu <= 100")
    searcher = StudySearcher(study, target=1, assign=assign, meter=meter_of(study), constraints=[limit])
    searcher.suggest("t")
    searcher.on_trial_complete("t", result(1, 0.5, state=state, **{"val/mae_hu": 120.0}))
    assert study.trials[0].constraints == {"val/mae_hu <= 100": 20.0}
    assert best_trial(study) is None
    searcher = StudySearcher(study, target=2, assign=assign, meter=meter_of(study), constraints=[limit])
    searcher.suggest("u")
    searcher.on_trial_complete("u", result(1, 0.4, state=state, **{"val/mae_hu": 90.0}))
    assert best_trial(study)[1] == 0.4


@pytest.fixture(params=["tpe", "nsga2", "gp", "random"])
def several(tmp_path, request):
    goals = (Goal("val/ssim", "max"), Goal("cost/parameters", "min"))
    uri = f"sqlite:///{tmp_path / 'several.db'}"
    return open_study(uri, "s", Identity("pet2ct", "a", "b"), goals=goals, sampler=request.param, seed=0)


def test_searcher_with_several_goals_works_with_every_sampler(several):
    searcher = StudySearcher(several, target=12, assign=assign, meter=meter_of(several))
    for number in range(12):
        searcher.suggest("t")
        searcher.on_trial_result("t", result(1, 0.1 * number, 5.0))
        searcher.on_trial_complete(
            "t", result(2, 0.1 * number, 5.0 + number % 2, state=["complete", "running"][number % 3 == 2])
        )
    stopped = several.trials[2]
    assert (stopped.state, stopped.user_attrs["epochs"]) == (TrialState.PRUNED, {"1": [0.2, 5.0], "2": [0.2, 5.0]})
    assert [(trial.number, trial.values) for trial in front(several)] == [(10, [1.0, 5.0])]


def test_searcher_queues_running_trials_when_budget_is_used_up(study):
    now = [0.0]
    meter = meter_of(study, lambda: now[0], gpu_hours=1.0)
    searcher = StudySearcher(study, target=3, assign=assign, meter=meter)
    assert searcher.suggest("t") and searcher.suggest("u")
    now[0] = 901.0  # two trials on two cores each, for a little more than a quarter of an hour
    assert searcher.suggest("v") is None
    searcher.on_trial_complete("t", result(1, 0.5))
    searcher.on_trial_complete("u", result(1, 0.6))
    assert searcher.suggest("v") == Searcher.FINISHED
    assert [state_of(trial) for trial in study.trials] == ["budget", "budget", "waiting", "waiting"]
    assert [trial.user_attrs["device_s"] for trial in study.trials[:2]] == [1802.0, 1802.0]
    more = StudySearcher(study, target=3, assign=assign, meter=meter_of(study, gpu_hours=2.0))
    assert more.suggest("w") == {"number": 2}, "the first trial that was queued again"
    assert study.trials[2].user_attrs["retries"] == 0
