"""The progress of a training, and the learning rate and cycle share that depend on it."""

import pytest
import torch

from medgan.training import loop
from medgan.training.checkpoint import restore
from medgan.training.loop import SCHEDULES, Length, save_epoch, train_epoch

pytestmark = pytest.mark.unit


class TestLearningRate:
    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            ("constant", [1, 1, 1, 1, 1]),
            ("linear", [1, 1, 1, 0.5, 0]),  # full until half of the training is done, then down to 0
            ("cosine", [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
        ],
    )
    def test_factor_of_schedule_follows_progress(self, schedule, expected):
        factors = [SCHEDULES[schedule](progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert factors == pytest.approx(expected, abs=1e-12)

    def test_learning_rate_is_set_by_epoch_for_both_networks(self, make_training, small, monkeypatch):
        rates = []

        def step(state, objective, batches, updates):
            next(batches)
            optimizers = (state.generator_optimizer, state.discriminator_optimizer)
            rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in optimizers))
            return {"discriminator": torch.zeros(())}

        monkeypatch.setattr(loop, "train_step", step)
        settings = {"generator_lr": 1e-3, "discriminator_lr": 4e-3, "schedule": "linear"}
        training = make_training(small(
            train__epochs=4, train__generator_steps=1, **{f"optim__{name}": value for name, value in settings.items()}
        ))  # fmt: skip
        for _ in range(4):
            train_epoch(training)
        factors = [1, 1, 1, 0.5]
        assert rates == [pytest.approx((1e-3 * factor, 4e-3 * factor)) for factor in factors for _ in range(3)]

    def test_restored_training_continues_schedule(self, make_training, small, tmp_path):
        config = small(train__epochs=4, optim__schedule="linear", optim__generator_lr=1e-3)
        first = make_training(config)
        for _ in range(3):
            train_epoch(first)
        save_epoch(first, tmp_path)
        second = make_training(config)
        restore(tmp_path, second.state)
        train_epoch(second)
        assert second.state.generator_optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3)

    def test_training_without_discriminator_follows_schedule(self, make_training, small):
        config = small(
            loss__lambda_adversarial=0.0, loss__lambda_perceptual=0.0, loss__lambda_l1=1.0, train__epochs=2,
            optim__schedule="cosine", optim__generator_lr=1e-3,
        )  # fmt: skip
        training = make_training(config)
        assert "loss/discriminator" not in train_epoch(training)
        train_epoch(training)
        assert training.state.generator_optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3)


class TestLength:
    def rows(self, *seconds):
        return [{"time/epoch_s": value} for value in seconds]

    def test_progress_is_share_of_epochs(self):
        length = Length(4)
        assert [length.progress(self.rows(*[1e6] * done)) for done in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]

    def test_progress_is_share_of_minutes_if_minutes_end_first(self):
        length = Length(100, minutes=2.0)
        assert length.progress([]) == 0
        assert length.progress(self.rows(30.0, 30.0)) == 0.5
        assert length.progress(self.rows(90.0, 90.0)) == 1

    def test_progress_is_share_of_epochs_if_epochs_end_first(self):
        assert Length(4, minutes=60.0).progress(self.rows(1.0, 1.0)) == 0.5

    def test_progress_does_not_read_clock(self, monkeypatch):
        monkeypatch.setattr(loop.time, "perf_counter", lambda: pytest.fail("looked at the clock"))
        assert Length(4, minutes=1.0).progress(self.rows(6.0)) == 0.25

    def test_cycle_share_follows_progress(self, make_training, small, monkeypatch):
        shares = []

        def step(state, objective, batches, updates):
            next(batches)
            shares.append(objective.generator["cycle"][0])
            return {"discriminator": torch.zeros(())}

        monkeypatch.setattr(loop, "train_step", step)
        config = small(
            loss__lambda_cycle=1.0, loss__cycle_share=[0.1, 0.5], train__epochs=4, train__generator_steps=3,
            generator__num_blocks=1,
        )  # fmt: skip
        training = make_training(config)
        for _ in range(4):
            train_epoch(training)
        assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4])
