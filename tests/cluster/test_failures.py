"""How a trial fails: a configuration that diverges and one out of memory are two kinds of failure everywhere."""

import re

import mlflow
import optuna
import pytest

from medgan.search.study import state_of

LIMIT_S = 200
SPACE = """
set:
  data.size: 32
  generator.num_blocks: 2
  discriminator.base_channels: 4
  extractor.weights: random
  loss.style_blocks: [1]
  loss.content_blocks: [1]
  train.epochs: 4
  train.batch_size: 8
search:
  generator.base_channels: {choice: [4, 64]}
  optim.generator_lr: {choice: [1.0e-3, 10]}
sampler: grid
scheduler: {grace_epochs: 4}
trials: 4
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory, dicom, search, workers_of, limit_memory):
    """A finished job: one of its two workers has no memory for the larger network, and one rate diverges."""
    home = tmp_path_factory.mktemp("failures") / "home"
    found = search(home, SPACE, "--study", "failures", "--concurrent", "1", "--data", str(dicom))
    found.until(r"trial \d+: epoch 1/4")
    limit_memory(workers_of(home)[0])
    assert found.end(2 * LIMIT_S) == 0, found.text
    return found


@pytest.fixture(scope="module")
def states(job):
    """What the study says of each trial."""
    study = optuna.load_study(study_name="failures", storage=f"sqlite:///{job.home / 'study.db'}")
    return {trial.number: (state_of(trial), trial) for trial in study.get_trials()}


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT_S)
def test_optuna_holds_state_and_reason_of_each_failure(states):
    reasons = {tuple(trial.params.values()): trial.user_attrs.get("reason") for _, trial in states.values()}
    assert {tuple(trial.params.values()): state for state, trial in states.values()} == {
        (4, 1e-3): "complete",
        (4, 10): "diverged",
        (64, 1e-3): "out_of_memory",
        (64, 10): "diverged",  # on new workers
    }
    assert re.search("is nan|is inf|not finite|whatever the source", reasons[4, 10])
    assert "memory" in reasons[64, 1e-3]


@pytest.mark.slow
def test_mlflow_holds_state_of_each_failure(job, states):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{job.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medgan/pet2ct-phantom")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" in run.data.tags]
    found = {int(run.data.tags["medgan.root"]): (run.data.tags["medgan.state"], run.info.status) for run in runs}
    expected = {
        number: (state, "FINISHED" if state == "complete" else "FAILED") for number, (state, _) in states.items()
    }
    assert found == expected


@pytest.mark.slow
def test_report_and_terminal_name_each_failure(job):
    (report,) = (job.home / "reports").rglob("report.html")
    for state in ("diverged", "out of memory"):
        assert re.search(rf">{state}<", report.read_text())
        assert re.search(rf"trial \d+: {state.replace(' ', '[ _]')} \(", job.text)
