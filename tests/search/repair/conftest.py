"""A small real study: each test breaks it in one way; `examine` finds that, `repair` repairs it."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from medgan.paths import find_place
from medgan.search.consistency import open_stores
from medgan.search.mlflow_sync import STATUS
from medgan.search.objectives import Goal
from medgan.search.repair import examine, repair
from medgan.search.study import KEY, Identity, fail, open_study, recover, state_of
from medgan.search.trial import trial_folder
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.store import STATE_TAG
from medgan.training.checkpoint import BEST, LAST, save_tensors

SPACE = {"optim.generator_lr": FloatDistribution(1e-4, 1e-2, log=True)}
GOALS = (Goal("val/ssim", "max"),)
CURVES = {0: [0.3, 0.6, 0.6, 0.7], 1: [0.2, 0.25], 2: [0.1], 3: [0.4, 0.5]}
"""The best value so far by epoch: trial 0 is complete, 1 pruned, 2 diverged, 3 interrupted and queued again."""


def write_checkpoints(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_tensors(folder / name, {"weight": torch.zeros(2)})


def open_tracking(place, study):
    return MlflowStudy(
        place.tracking_uri, "medgan/pet2ct", artifacts=place.artifacts, study="s", key=study.user_attrs[KEY]
    )


def run_trial(study, tracking, checkpoints):
    """Adds a trial as a search leaves it: in the study, in MLflow and on disk."""
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
    write_checkpoints(trial_folder(checkpoints, trial.number), *{0: [BEST], 3: [LAST, BEST]}.get(trial.number, []))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The output folder of a study whose three stores agree."""
    output = tmp_path_factory.mktemp("healthy")
    place = find_place(output, tracking_uri=f"sqlite:///{output / 'mlflow.db'}")
    study = open_study(place.study_uri, "s", Identity("pet2ct", "a" * 64, "b" * 64), goals=GOALS)
    with open_tracking(place, study) as tracking:
        for _ in CURVES:
            run_trial(study, tracking, place.checkpoints(f"s-{study.user_attrs[KEY]}"))
    return output


@pytest.fixture
def stored(healthy, tmp_path):
    """The stores of a copy of this study, which the test may break."""
    output = tmp_path / "output"
    shutil.copytree(healthy, output)
    place = find_place(output, tracking_uri=f"sqlite:///{output / 'mlflow.db'}")
    stores = open_stores("s", place)
    (number,) = stores.runs.experiment_ids
    return SimpleNamespace(
        place=place,
        stores=stores,
        study=stores.study,
        space=SPACE,
        runs=stores.runs,
        client=stores.runs.client,
        experiment=number,
        folder=lambda first_attempt: trial_folder(stores.checkpoints, first_attempt),
        run=lambda first_attempt: next(run for run in stores.runs.found() if run.first_attempt == str(first_attempt)),
    )


@pytest.fixture
def write():
    return write_checkpoints


@pytest.fixture
def open_runs():
    return open_tracking


@pytest.fixture
def lines_of():
    """Returns a function that calls `examine` or `repair`, and returns its result and the lines that it printed."""

    def call(function, stored):
        lines = []
        return function(stored.stores, lines.append), lines

    return call


@pytest.fixture
def expect_repaired(lines_of):
    """Returns a function: `examine` prints these lines, `repair` repeats them, and `examine` then finds nothing."""

    def expect(stored, *lines):
        num_found, found = lines_of(examine, stored)
        assert (num_found, [line for line in lines if not any(line in one for one in found)]) == (len(found), []), found
        left, repaired = lines_of(repair, stored)
        assert (left, [line for line in lines if not any(line in one for one in repaired)]) == (0, []), repaired
        assert lines_of(examine, stored) == (0, [])
        return repaired

    return expect
