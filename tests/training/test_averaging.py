"""The averaged generator does not lag behind the one that is trained, from the first epoch on."""

import pytest
import torch

from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.metrics.validation_metrics import overall_means, patient_means
from medgan.presets.by_name import configured
from medgan.training.build_training import build_training
from medgan.training.loop import train_epoch
from medgan.training.runtime import SingleProcess
from medgan.training.validation import evaluate

MOST_BEHIND = 0.02


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared_phantoms(tmp_path_factory.mktemp("phantoms"), size=64, patients=12, slices=20)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "decay"), [(0, 0.99), (1, 0.999), (2, 0.99)])
def test_average_is_hardly_behind_generator_in_first_epochs(dataset, tmp_path, seed, decay):
    values = {"train.ema_decay": decay, "train.seed": seed}
    runtime = SingleProcess(torch.device("cpu"))
    training = build_training(configured("unet_l1", values, small=True), dataset, runtime, folder=tmp_path)
    for epoch in range(1, 6):
        averaged = train_epoch(training)["val/ssim"]
        plain = overall_means(patient_means(evaluate(training.state.generator, training.validation, runtime)))["ssim"]
        assert averaged >= plain - MOST_BEHIND, f"epoch {epoch}: {averaged:.3f} and {plain:.3f} without averaging"
