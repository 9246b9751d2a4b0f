"""The memory of the published MedGAN: a step of CasNet-6 at 256 x 256, batch 1, with every loss term."""

import subprocess
import sys

import pytest

SCRIPT = """
import itertools, resource
import torch
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.config import with_values
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step
from medgan.presets.medgan import medgan

config = with_values(medgan(), {
    "extractor.weights": "random", "loss.lambda_l1": 1.0, "loss.lambda_l2": 1.0, "loss.lambda_tv": 1.0,
    "loss.lambda_stages": 1.0, "loss.lambda_feature_matching": 1.0, "train.generator_steps": 1})
state, objective = build_state(config, SingleProcess(torch.device("cpu"))), build_objective(config)
pairs = ((torch.rand(1, 1, 256, 256) * 2 - 1, torch.rand(1, 1, 256, 256) * 2 - 1) for _ in itertools.count())
for _ in range(2):  # the optimizers' moments exist after the first step
    losses = train_step(state, objective, pairs, updates_of(config))
assert all(value.isfinite() for value in losses.values()), losses
terms = [name for name in losses if not name.startswith("judgement_")]
print(len(terms), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_published_medgan_trains_step_in_8_gb():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    terms, peak_gib = done.stdout.split()
    assert int(terms) == 2 * 9 + 1
    assert float(peak_gib) * 2**30 <= 8e9, f"peak {peak_gib} GiB"
    print("peak", peak_gib, "GiB")
