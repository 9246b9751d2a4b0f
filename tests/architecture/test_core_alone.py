"""The core trains without the platform's engines: ray, mlflow, optuna and pydicom blocked from being imported."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys

class Blocked:
    names = {"ray", "mlflow", "optuna", "pydicom"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())

import torch
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state
from medgan.config import Config, with_values
from medgan.training.runtime import SingleProcess
from medgan.training.step import Updates, train_step

torch.set_num_threads(1)
config = with_values(Config(), {
    "data.size": 16, "generator.base_channels": 2, "discriminator.base_channels": 2, "loss.lambda_perceptual": 20,
    "loss.lambda_style": 1e-4, "loss.style_blocks": [1], "train.generator_steps": 3})
state, objective = build_state(config, SingleProcess(torch.device("cpu"))), build_objective(config)
batches = iter([(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)) for _ in range(6)])
for _ in range(2):
    losses = train_step(state, objective, batches, updates=Updates(generator=config.train.generator_steps))
assert all(value.isfinite() for value in losses.values()), losses
assert not Blocked.names & {name.split(".")[0] for name in sys.modules}
print("trained", len(losses))
"""


@pytest.mark.timeout(120)
def test_core_trains_without_ray_mlflow_optuna_and_pydicom():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained 9")
