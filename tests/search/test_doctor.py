"""The doctor on a small real study, broken in one way at a time: it says so, mends it, and then finds nothing."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sqlalchemy import create_engine

from medgan.engine.checkpoint import BEST, LAST, save_tensors
from medgan.errors import InputError
from medgan.place import find_place
from medgan.search.doctor import examine, repair
from medgan.search.goals import Goal
from medgan.search.lease import LEASES, is_expired, leased
from medgan.search.record import STATUS
from medgan.search.stores import open_stores
from medgan.search.study import KEY, Identity, fail, finished, open_study, recover, root_of, state_of
from medgan.search.trial import trial_folder
from medgan.tracking.mlflow import MlflowStudy
from medgan.tracking.store import STATE_TAG

SPACE = {"optim.generator_lr": FloatDistribution(1e-4, 1e-2, log=True)}
GOALS = (Goal("val/ssim", "max"),)
CURVES = {0: [0.3, 0.6, 0.6, 0.7], 1: [0.2, 0.25], 2: [0.1], 3: [0.4, 0.5]}
"""The best so far by epoch: trial 0 is complete, 1 pruned, 2 diverged, 3 interrupted and waits to go on."""


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_tensors(folder / name, {"weight": torch.zeros(2)})


def tracked(place, study):
    return MlflowStudy(
        place.tracking_uri, "medgan/pet2ct", artifacts=place.artifacts, study="s", key=study.user_attrs[KEY]
    )


def run_trial(study, tracking, checkpoints):
    """One trial as a search leaves it: in the study, in MLflow and on disk."""
    trial = study.ask(SPACE)
    curve, run = CURVES[trial.number], tracking.trial(trial.number)
    for epoch, value in enumerate(curve, start=1):
        trial.report(value, step=epoch)
        run.metrics({"val/ssim": value, "val/mae_hu": 100.0}, epoch)
    trial.set_user_attr("epochs", {str(epoch): [value] for epoch, value in enumerate(curve, start=1)})
    trial.set_user_attr("metrics", {"val/ssim": max(curve), "val/mae_hu": 90.0})
    if trial.number == 0:
        study.tell(trial.number, curve[-1])
    elif trial.number == 1:
        study.tell(trial.number, state=TrialState.PRUNED)
    elif trial.number == 2:
        fail(study, study.trials[2], "diverged", "loss is nan")
    else:
        recover(study)
    state = state_of(study.trials[trial.number])
    run.tags({STATE_TAG: state})
    run.finish(STATUS.get(state, "FAILED"))
    write(trial_folder(checkpoints, trial.number), *{0: [BEST], 3: [LAST, BEST]}.get(trial.number, []))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The output folder of a study on which everything agrees."""
    output = tmp_path_factory.mktemp("healthy")
    place = find_place(output, tracking_uri=f"sqlite:///{output / 'mlflow.db'}")
    study = open_study(place.study_uri, "s", Identity("pet2ct", "a" * 64, "b" * 64), goals=GOALS)
    with tracked(place, study) as tracking:
        for _ in CURVES:
            run_trial(study, tracking, place.checkpoints(f"s-{study.user_attrs[KEY]}"))
    return output


@pytest.fixture
def there(healthy, tmp_path):
    """A copy of it to be broken: its stores, by name."""
    output = tmp_path / "output"
    shutil.copytree(healthy, output)
    place = find_place(output, tracking_uri=f"sqlite:///{output / 'mlflow.db'}")
    stores = open_stores("s", place)
    (number,) = stores.runs.experiment_ids
    return SimpleNamespace(
        place=place,
        stores=stores,
        study=stores.study,
        runs=stores.runs,
        client=stores.runs.client,
        experiment=number,
        folder=lambda root: trial_folder(stores.checkpoints, root),
        run=lambda root: next(run for run in stores.runs.found() if run.root == str(root)),
    )


def said_by(call, there):
    lines = []
    return call(there.stores, lines.append), lines


def expect_mended(there, *lines):
    """Examined, the lines are said; repaired, they are said again with what was done; examined again, nothing is."""
    num_found, found = said_by(examine, there)
    assert (num_found, [line for line in lines if not any(line in one for one in found)]) == (len(found), []), found
    left, mended = said_by(repair, there)
    assert (left, [line for line in lines if not any(line in one for one in mended)]) == (0, []), mended
    assert said_by(examine, there) == (0, [])
    return mended


def test_nothing_is_said_of_a_study_on_which_everything_agrees(there):
    assert said_by(examine, there) == (0, [])
    assert said_by(repair, there) == (0, [])


def test_a_trial_that_a_dead_driver_left_running_is_put_back(there):
    trial = there.study.ask(SPACE)
    assert root_of(trial) == 3
    expect_mended(there, "trial 3: attempt 4 runs in the study but no driver does, should wait to be repeated")
    assert [state_of(one) for one in there.study.trials[3:]] == ["interrupted", "interrupted", "waiting"]
    assert finished(there.study) == there.study.trials[:3]


def test_a_driver_that_died_while_it_put_a_trial_back_has_not_doubled_it(there):
    trial = there.study.ask(SPACE)
    there.study.enqueue_trial(trial.params, user_attrs={"root": 3, "retry_of": 4, "retries": 0})
    expect_mended(there, "trial 3: attempt 4 runs in the study")
    assert [state_of(one) for one in there.study.trials[3:]] == ["interrupted", "interrupted", "waiting"]


def test_a_trial_that_waits_twice_waits_once(there):
    there.study.enqueue_trial(there.study.trials[3].params, user_attrs={"root": 3, "retry_of": 3, "retries": 0})
    expect_mended(there, "trial 3: attempt 5 waits or runs in the study, so does 4, should be one")
    assert [state_of(one) for one in there.study.trials[3:]] == ["interrupted", "waiting", "interrupted"]
    assert there.study.trials[5].user_attrs["reason"] == "withdrawn: it doubled another attempt"


def test_a_trial_that_runs_twice_runs_once(there):
    first = there.study.ask(SPACE)
    there.study.enqueue_trial(first.params, user_attrs={"root": 3, "retry_of": 3, "retries": 0})
    there.study.ask(SPACE)
    expect_mended(there, "trial 3: attempt 4 runs", "trial 3: attempt 5 runs")
    assert [state_of(one) for one in there.study.trials].count("waiting") == 1


def test_a_finished_trial_does_not_wait(there):
    there.study.enqueue_trial(there.study.trials[0].params, user_attrs={"root": 0, "retry_of": 0, "retries": 0})
    expect_mended(there, "trial 0: attempt 5 waits or runs in the study, the trial is finished")


def test_a_lost_trial_is_queued_again(there):
    waiting = there.study.trials[4]
    storage = there.study._storage
    storage.set_trial_user_attr(waiting._trial_id, "failure", "infrastructure")
    storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
    expect_mended(there, "trial 3: its last attempt ended as infrastructure and none waits, one should")
    assert there.study.trials[5].user_attrs == {"root": 3, "retry_of": 4, "retries": 0}
    assert there.study.ask(SPACE).params == there.study.trials[3].params


def test_a_trial_that_finished_twice_is_told_and_cannot_be_mended(there):
    there.study.enqueue_trial(there.study.trials[1].params, user_attrs={"root": 1, "retry_of": 1})
    there.study.ask(SPACE)
    there.study.tell(there.study.ask(SPACE).number, 0.1)
    said = said_by(repair, there)[1]
    assert "trial 1: finished 2 times (attempts [1, 5]), should be once: cannot be mended" in said
    assert said_by(repair, there)[0] == 1


def test_of_two_runs_of_a_trial_the_one_with_more_epochs_stays(there):
    kept = there.run(1).run_id
    tags = there.client.get_run(kept).data.tags
    other = there.client.create_run(there.experiment, tags=tags).info.run_id
    there.client.log_metric(other, "epoch", 1, step=1)
    expect_mended(there, f"trial 1: MLflow has another run {other} of 1 epochs, should have one")
    assert there.run(1).run_id == kept
    assert there.client.get_run(other).info.lifecycle_stage == "deleted"


def test_of_two_runs_of_the_study_the_one_with_the_trials_stays(there):
    kept = there.run("study").run_id
    tags = there.client.get_run(kept).data.tags
    there.client.create_run(there.experiment, tags=tags)
    expect_mended(there, "study: MLflow has another run")
    assert there.run("study").run_id == kept


def test_runs_of_trials_that_nobody_runs_are_ended(there):
    for root in (0, 3):
        there.client.update_run(there.run(root).run_id, status="RUNNING")
    expect_mended(
        there,
        "trial 0: MLflow says complete (RUNNING), should be complete (FINISHED)",
        "trial 3: MLflow says interrupted (RUNNING), should be interrupted (KILLED)",
    )


def test_the_study_decides_how_a_trial_ended(there):
    there.client.set_tag(there.run(2).run_id, STATE_TAG, "complete")
    there.client.delete_tag(there.run(1).run_id, STATE_TAG)
    there.client.set_terminated(there.run(3).run_id, "FINISHED")
    expect_mended(
        there,
        "trial 2: MLflow says complete (FAILED), should be diverged (FAILED)",
        "trial 1: MLflow says no state (FINISHED), should be pruned (FINISHED)",
        "trial 3: MLflow says interrupted (FINISHED), should be interrupted (KILLED)",
    )


def test_a_finished_trial_without_a_run_is_given_one(there):
    there.client.delete_run(there.run(2).run_id)
    (line,) = expect_mended(there, "trial 2: diverged in the study, MLflow has no run of it")
    assert line.endswith(": made from the study, without pictures and losses")
    run, frozen = there.client.get_run(there.run(2).run_id), there.study.trials[2]
    assert (run.info.run_name, run.info.status) == ("#2 s", "FAILED")
    assert run.info.start_time == int(frozen.datetime_start.timestamp() * 1000)
    assert run.info.end_time == int(frozen.datetime_complete.timestamp() * 1000)
    assert run.data.params == {key: str(value) for key, value in frozen.params.items()}
    told = {key: value for key, value in run.data.tags.items() if key.startswith("medgan.")}
    assert told == {
        "medgan.study": "s",
        "medgan.study_key": there.study.user_attrs[KEY],
        "medgan.root": "2",
        "medgan.trial": "2",
        "medgan.state": "diverged",
        "medgan.reason": "loss is nan",
        "medgan.task": "pet2ct",
        "medgan.data_digest": "a" * 64,
        "medgan.made_from": "study database",
    }
    assert run.data.tags["mlflow.parentRunId"] == there.run("study").run_id


def test_epochs_that_a_run_lacks_get_the_values_that_the_study_knows(there):
    there.client.delete_run(there.run(0).run_id)
    run = tracked(there.place, there.study).trial(0)
    run.metrics({"val/ssim": 0.3}, 1)
    run.tags({STATE_TAG: "complete"})
    run.finish("FINISHED")
    there.client.set_terminated(there.run("study").run_id, "FINISHED")
    expect_mended(there, "trial 0: MLflow lacks 3 of its 4 epochs: 2, 3, 4")

    def history(name):
        return {metric.step: metric.value for metric in there.client.get_metric_history(run.run_id, name)}

    assert history("val/ssim") == {1: 0.3, 2: 0.6, 3: 0.6, 4: 0.7}
    assert history("val/mae_hu") == {4: 90.0}
    assert history("epoch") == {1: 1, 2: 2, 3: 3, 4: 4}


def test_a_hole_among_the_epochs_is_found(there):
    run = there.runs.add(1, beside=there.run("study").run_id, tags={STATE_TAG: "pruned"}, params={}, start_ms=None)
    there.runs.add_epochs(run, {2: {"val/ssim": 0.25}})
    there.runs.end(run, "FINISHED", "pruned")
    there.client.delete_run(there.run(1).run_id)
    expect_mended(there, "trial 1: MLflow lacks 1 of its 2 epochs: 1")


def test_a_run_of_a_trial_that_the_study_does_not_know_is_deleted(there):
    with tracked(there.place, there.study) as tracking:
        tracking.trial(9).finish("FINISHED")
    expect_mended(there, "trial 9: MLflow has a run")
    assert {run.root for run in there.runs.found()} == {"study", "0", "1", "2", "3"}


def test_the_best_trials_missing_generator_cannot_be_mended(there):
    (there.folder(0) / BEST).unlink()
    assert said_by(examine, there) == (
        1,
        ["trial 0: the best, should have best.safetensors but has none; cannot be mended"],
    )
    assert said_by(repair, there)[0] == 1


def test_what_only_a_trial_that_goes_on_needs_is_deleted(there):
    write(there.folder(1), LAST)
    expect_mended(there, "trial 1: has last.safetensors but is finished, should have none")
    assert not (there.folder(1) / LAST).exists()
    assert (there.folder(3) / LAST).exists()


def test_the_folder_of_an_unknown_trial_is_deleted_and_no_other(there):
    write(there.folder(7), LAST)
    own = there.stores.checkpoints / "notes"
    write(own, BEST)
    expect_mended(there, "trial 7: has a checkpoint folder, the study no such trial")
    assert (there.folder(7).exists(), own.exists()) == (False, True)


def test_files_that_were_never_finished_are_deleted(there):
    (there.folder(3) / "last.part").write_bytes(b"half")
    expect_mended(there, "checkpoints: 0003/last.part was never finished")
    assert not list(there.stores.checkpoints.rglob("*.part"))


def test_a_dead_drivers_lease_is_given_back(there):
    die = "from medgan.search.lease import leased; import os, sys\nwith leased(sys.argv[1], 's'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", die, there.place.study_uri], timeout=120).returncode == 9
    assert is_expired(there.place.study_uri, "s")
    expect_mended(there, "study: held by a driver that is dead, should be held by nobody")
    assert not is_expired(there.place.study_uri, "s")
    with create_engine(there.place.study_uri).connect() as connection:
        assert connection.execute(LEASES.select()).all() == []


def test_the_studys_own_run_is_ended_when_nobody_runs_it(there):
    there.client.update_run(there.run("study").run_id, status="RUNNING")
    expect_mended(there, "study: MLflow says RUNNING but no driver runs it, should be KILLED")
    assert there.run("study").status == "KILLED"


def test_a_study_without_a_run_is_told_once_and_nothing_is_made(there):
    for run in there.runs.found():
        there.client.delete_run(run.run_id)
    assert said_by(examine, there) == (1, ["study: MLflow has no run of it, should have one; cannot be mended"])
    assert said_by(repair, there)[0] == 1
    assert there.runs.found() == []


def test_while_a_driver_runs_it_what_is_going_on_is_no_disagreement_and_repair_is_refused(there):
    there.study.ask(SPACE)
    (there.folder(3) / "last.part").write_bytes(b"half")
    for root in (3, "study"):
        there.client.update_run(there.run(root).run_id, status="RUNNING")
    there.client.set_tag(there.run(3).run_id, STATE_TAG, "running")
    with leased(there.place.study_uri, "s"):
        num_found, lines = said_by(examine, there)
        assert (num_found, len(lines)) == (0, 1)
        assert "study s is being run by process" in lines[0]
        with pytest.raises(InputError, match="study s: already run by process"):
            repair(there.stores, print)
    assert state_of(there.study.trials[4]) == "running"


def test_everything_broken_at_once_is_mended_at_once(there):
    there.study.ask(SPACE)
    there.study.enqueue_trial({}, user_attrs={"root": 3, "retry_of": 3})
    there.client.delete_run(there.run(2).run_id)
    with tracked(there.place, there.study) as tracking:
        tracking.trial(3)
        tracking.trial(12)
    write(there.folder(12), LAST, BEST)
    write(there.folder(2), LAST)
    expect_mended(
        there, "trial 3: attempt 4 runs", "trial 2: diverged in the study", "trial 12: MLflow", "trial 12: has"
    )


def test_a_study_that_is_not_there_is_refused_and_those_that_are_named(there):
    with pytest.raises(InputError, match="study t: expected one of s"):
        open_stores("t", there.place)


def test_stores_that_are_not_there_are_refused_and_not_made(there, tmp_path):
    nowhere = find_place(tmp_path / "nowhere", tracking_uri=there.place.tracking_uri)
    with pytest.raises(InputError, match="--study-uri sqlite:.*there is no such database"):
        open_stores("s", nowhere)
    untracked = find_place(there.place.output, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(InputError, match="--tracking-uri sqlite:.*there is no such store"):
        open_stores("s", untracked)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_a_study_of_somebody_else_in_the_same_database_is_refused(there):
    optuna.create_study(storage=there.study._storage, study_name="foreign")
    with pytest.raises(InputError, match="study foreign: expected a study of medgan; it has no attribute 'key'"):
        open_stores("foreign", there.place)
