"""How a trial fails: a configuration that diverges and one out of memory are told apart wherever they are looked at."""

import optuna
import pytest

from medgan.search.study import state_of

LIMIT_S = 200
SPACE = """
set:
  data.size: 32
  generator.base_channels: 4
  discriminator.base_channels: 4
  extractor.weights: random
  loss.style_blocks: [1]
  loss.content_blocks: [1]
  train.epochs: 4
  train.batch_size: 8
search:
  generator.num_blocks: {int: [1, 2]}
  optim.generator_lr: {choice: [1.0e-3, 1.0e+20]}
scheduler: {grace_epochs: 4}
trials: 5
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory, dicom, search, processes_of, limit_memory):
    """A finished job; its second trial met a worker without memory, and some of its trials diverged."""
    home = tmp_path_factory.mktemp("failures") / "home"
    told = search(home, SPACE, "--study", "failures", "--data", str(dicom))
    told.until(r"trial \d+: epoch 1/4")
    limited = processes_of(home, "RayTrainWorker")[0]
    limit_memory(limited)
    assert told.end() == 0, told.text
    print(told.text)
    return told


def test_optuna_tells_them_apart(job):
    study = optuna.load_study(study_name="failures", storage=f"sqlite:///{job.home / 'study.db'}")
    states = {trial.number: state_of(trial) for trial in study.get_trials()}
    assert set(states.values()) == {"complete", "diverged", "out_of_memory"}
    for trial in study.get_trials():
        if state_of(trial) == "diverged":
            assert trial.params["optim.generator_lr"] == 1e20
            assert "not finite" in trial.user_attrs["reason"] or "is nan" in trial.user_attrs["reason"]
        if state_of(trial) == "out_of_memory":
            assert "memory" in trial.user_attrs["reason"]
    assert list(states.values()).count("out_of_memory") == 1
