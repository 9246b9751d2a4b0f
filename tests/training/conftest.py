import pytest
import torch
from torch.utils.data import Dataset

from medgan.config import Config, with_values
from medgan.tasks import TASKS
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, length_of, updates_of
from medgan.training.loop import Training
from medgan.training.runtime import SingleProcess

SMALL = {
    "data.size": 16, "generator.base_channels": 2, "discriminator.base_channels": 2, "generator.num_blocks": 2,
    "loss.lambda_perceptual": 20.0, "train.generator_steps": 3, "train.batch_size": 2, "train.seed": 3,
}  # fmt: skip
"""Settings of a MedGAN that trains in milliseconds."""


class SyntheticSlices(Dataset):
    """Replaces `data.dataset.Slices`: smooth random pairs of three patients, "a" with the most slices."""

    def __init__(self, num_slices, *, size=16, seed=0):
        draw = torch.Generator().manual_seed(seed)
        coarse = torch.rand(num_slices, 1, 4, 4, generator=draw) * 2 - 1
        self.sources = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        self.targets = (self.sources * -0.8).tanh()
        self.patients = ["a" if index % 2 else "bc"[index // 2 % 2] for index in range(num_slices)]
        self.slice_numbers = list(range(num_slices))
        self.target_window = (-1000.0, 2000.0)
        self.task = TASKS["pet2ct"]

    def __len__(self):
        return len(self.sources)

    def __getitem__(self, index):
        return self.sources[index], self.targets[index]

    def spread(self, count):
        return SyntheticSlices(min(count, len(self)))

    def mask(self, index):
        return self.sources[index] > 0


@pytest.fixture
def make_slices():
    return SyntheticSlices


@pytest.fixture
def small():
    """A small configuration with some leaves replaced."""
    return lambda **values: with_values(
        Config(), SMALL | {name.replace("__", "."): new for name, new in values.items()}
    )


@pytest.fixture
def make_state():
    """A freshly built state on the CPU."""
    return lambda config: build_state(config, SingleProcess(torch.device("cpu")))


@pytest.fixture
def make_training(small, make_state):
    """A training on seven training and five validation slices: with three batches an epoch, steps of two leave one."""

    def make(config=None):
        config = config or small()
        return Training(
            state=make_state(config),
            objective=build_objective(config),
            train=SyntheticSlices(7),
            validation=SyntheticSlices(5, seed=1),
            runtime=SingleProcess(torch.device("cpu")),
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            length=length_of(config),
            updates=updates_of(config),
            schedule=config.optim.schedule,
            augment=config.train.augment,
        )

    return make


@pytest.fixture
def batches():
    """Endless different batches, (source, target), each (2, 1, 16, 16)."""

    def make(seed=0, dtype=torch.float32):
        draw = torch.Generator().manual_seed(seed)
        while True:
            source, target = (torch.rand(2, 2, 1, 16, 16, generator=draw) * 2 - 1).to(dtype).unbind()
            yield source, target

    return make
