"""The averaged generator: its recursion, its warm-up, and that it does not lag behind the generator that is trained."""

import pytest
import torch
from torch import nn

from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.metrics.validation_metrics import overall_means, patient_means
from medgan.presets.by_name import configured
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_training, updates_of
from medgan.training.checkpoint import restore, save_state
from medgan.training.loop import train_epoch
from medgan.training.runtime import SingleProcess
from medgan.training.step import decay_after, follow, train_step, update_generator
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


def copies(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.unit
class TestAveragedGenerator:
    def test_follow_equals_recursion_worked_by_hand(self):
        average, network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        values = []
        with torch.no_grad():
            average.weight.fill_(1.0)
            for new in (3.0, -1.0, 5.0):
                network.weight.fill_(new)
                follow(average, network, torch.tensor(0.75))
                values.append(float(average.weight))
        # 0.75 * 1 + 0.25 * 3 = 1.5; 0.75 * 1.5 - 0.25 = 0.875; 0.75 * 0.875 + 0.25 * 5 = 1.90625
        assert values == pytest.approx([1.5, 0.875, 1.90625])

    @pytest.mark.parametrize(
        ("num_updates", "decay", "expected"),
        [(1, 0.99, 2 / 51), (440, 0.99, 0.9), (4850, 0.99, 0.99), (9000, 0.99, 0.99), (48950, 0.9999, 0.999)],
    )
    def test_decay_rises_with_updates_up_to_its_setting(self, num_updates, decay, expected):
        assert float(decay_after(torch.tensor(float(num_updates)), decay)) == pytest.approx(expected)

    def test_number_of_updates_survives_resume(self, small, make_state, batches, tmp_path):
        config = small(train__ema_decay=0.9)
        state, resumed = make_state(config), make_state(config)
        train_step(state, build_objective(config), batches(), updates_of(config))
        save_state(tmp_path, state)
        assert restore(tmp_path, resumed)
        assert float(resumed.generator_updates) == float(state.generator_updates) > 0

    def test_average_starts_as_generator_and_follows_every_update(self, small, make_state, batches):
        config = small(train__ema_decay=0.9)
        state, objective, stream = make_state(config), build_objective(config), batches()
        expected = copies(state.generator)
        assert all(torch.equal(*pair) for pair in zip(copies(state.average), expected, strict=True))
        for decay in (2 / 51, 3 / 52, 4 / 53):
            update_generator(state, objective, next(stream), updates_of(config))
            expected = [
                decay * old + (1 - decay) * new for old, new in zip(expected, copies(state.generator), strict=True)
            ]
        for mine, by_hand in zip(copies(state.average), expected, strict=True):
            torch.testing.assert_close(mine, by_hand)

    def test_follow_copies_batch_norm_statistics(self, small, make_state, batches):
        config = small(train__ema_decay=0.9, generator__norm="batch")
        state = make_state(config)
        fresh = [buffer.clone() for buffer in state.average.buffers()]
        train_step(state, build_objective(config), batches(), updates_of(config))
        buffers = list(state.average.buffers())
        assert all(torch.equal(*pair) for pair in zip(buffers, state.generator.buffers(), strict=True))
        assert not all(torch.equal(*pair) for pair in zip(buffers, fresh, strict=True))

    def test_average_does_not_change_training(self, small, make_state, batches):
        after = []
        for decay in (0.0, 0.9):
            config = small(train__ema_decay=decay)
            state = make_state(config)
            train_step(state, build_objective(config), batches(), updates_of(config))
            after.append(copies(state.generator))
        assert all(torch.equal(*pair) for pair in zip(*after, strict=True))
        assert not any(parameter.requires_grad for parameter in state.average.parameters())

    def test_best_generator_is_average_if_there_is_one(self, small, make_state):
        with_average, without = make_state(small(train__ema_decay=0.9)), make_state(small())
        assert with_average.best_generator is with_average.average
        assert without.average is None
        assert without.best_generator is without.generator
