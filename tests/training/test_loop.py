import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refusal
from safetensors.torch import load_file

from medgan.errors import Diverged
from medgan.training import loop
from medgan.training.checkpoint import BEST, LAST, PICTURES, read_history, restore
from medgan.training.loop import save_epoch, steps_before, train_epoch
from medgan.training.validation import evaluate


def test_train_epoch_returns_losses_validation_metrics_and_times(make_training):
    training = make_training()
    row = train_epoch(training)
    terms = ("adversarial", "perceptual")
    assert set(row) == {
        "loss/discriminator", *(f"loss/generator/{term}{form}" for term in terms for form in ("", "_weighted")),
        *(f"share/generator/{term}" for term in terms), "judgement/real", "judgement/fake",
        "time/data_s", "time/train_s", "time/epoch_s", *(name for name in row if name.startswith("val/")),
    }  # fmt: skip
    assert {"val/ssim", "val/psnr", "val/mse", "val/mae_hu", "val/mae_hu_body"} <= set(row)
    assert all(np.isfinite(value) for value in row.values())
    assert 0 < row["time/data_s"] <= row["time/train_s"] <= row["time/epoch_s"]
    assert training.state.history == [row]
    assert json.loads(json.dumps(row)) == row


def test_losses_of_epoch_are_means_over_steps(make_training, small, monkeypatch):
    values = iter([1.0, 2.0, 6.0])

    def step(state, objective, batches, updates):
        next(batches)
        return {"discriminator": torch.tensor(next(values))}

    monkeypatch.setattr(loop, "train_step", step)
    assert train_epoch(make_training(small(train__generator_steps=1)))["loss/discriminator"] == 3.0


@pytest.mark.parametrize(("generator_steps", "expected"), [(1, [0, 3, 6, 9]), (2, [0, 1, 3, 4]), (3, [0, 1, 2, 3])])
def test_steps_before_carries_leftover_batches_to_next_epoch(make_training, small, generator_steps, expected):
    training = make_training(small(train__generator_steps=generator_steps))
    assert [steps_before(training, epoch) for epoch in range(4)] == expected


def test_epochs_use_batches_without_gap_or_repetition(make_training, small, monkeypatch):
    """Two generator steps, three batches an epoch: epochs take 2, 4, 2, 4 batches of one stream."""
    seen = []

    def step(state, objective, batches, updates):
        seen.extend(source for source, _ in (next(batches) for _ in range(updates.batches)))
        return {"discriminator": torch.zeros(())}

    monkeypatch.setattr(loop, "train_step", step)
    training = make_training(small(train__generator_steps=2))
    counts = []
    for _ in range(4):
        train_epoch(training)
        counts.append(len(seen))
    assert counts == [2, 6, 8, 12]
    sampler = iter(loop.Batches(7, 2, seed=training.seed))
    for source in seen:
        assert torch.equal(source, training.train.sources[next(sampler)])


def test_on_first_step_is_called_once_per_epoch(make_training):
    training = make_training()
    calls = []
    training.on_first_step = lambda: calls.append(training.state.epoch)
    train_epoch(training)
    assert calls == [0]


def test_train_epoch_refuses_loss_that_is_not_finite(make_training):
    training = make_training()
    train_epoch(training)
    with torch.no_grad():
        next(training.state.directions[0].discriminator.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, check=refusal("E-TRAIN-02", name="loss/generator/adversarial", mean="nan", epoch=2)):
        train_epoch(training)
    assert training.state.epoch == 1


def test_training_depends_only_on_seed(make_training, small):
    rows = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(rows))
        rows.append(train_epoch(make_training(small(train__seed=seed)))["loss/generator/perceptual"])
    assert rows[0] == rows[1] != rows[2]


@dataclass
class SlowerNeighbor:
    """Replaces the first of two ranks: the other needs ten seconds more, and `calls` records what is shared."""

    calls: list
    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    def mean(self, values):
        self.calls.append("mean")
        return {name: value + (5.0 if name.startswith("time/") else 0.0) for name, value in values.items()}

    def agree(self, module):
        self.calls.append(module)

    def gather(self, rows):
        self.calls.append("gather")
        return list(rows)


class TestRanks:
    def test_times_are_means_over_ranks(self, make_training):
        """All ranks need the same history, because the length of a training depends on the times in it."""
        training = make_training()
        training.runtime = SlowerNeighbor([])
        row = train_epoch(training)
        assert 5 < row["time/train_s"] <= row["time/epoch_s"] < 5 + 60

    def test_ranks_agree_on_evaluated_generator_after_last_step(self, make_training, small, monkeypatch):
        training = make_training(small(train__ema_decay=0.9))
        calls = []
        training.runtime = SlowerNeighbor(calls)
        step = loop.train_step
        monkeypatch.setattr(loop, "train_step", lambda *arguments: calls.append("step") or step(*arguments))
        training.state.average.register_forward_pre_hook(lambda module, images: calls.append("evaluate"))
        train_epoch(training)
        place = calls.index(training.state.best_generator)
        assert "step" not in calls[place:]
        assert "evaluate" not in calls[:place]
        assert "evaluate" in calls[place:]

    def test_ranks_agree_on_trained_generator_and_average(self, make_training, small):
        """Otherwise a restored training would start from the batch normalization of another rank."""
        training = make_training(small(train__ema_decay=0.9, generator__norm="batch"))
        training.runtime = SlowerNeighbor([])
        train_epoch(training)
        assert any(shared is training.state.generator for shared in training.runtime.calls)
        assert any(shared is training.state.average for shared in training.runtime.calls)


class TestAugmentation:
    def batches_seen(self, training, monkeypatch):
        seen = []

        def step(state, objective, batches, updates):
            seen.extend(next(batches) for _ in range(updates.batches))
            return {"discriminator": torch.zeros(())}

        monkeypatch.setattr(loop, "train_step", step)
        train_epoch(training)
        return seen

    def test_augmentation_moves_pairs_together_and_equally_in_repeated_epoch(self, make_training, small, monkeypatch):
        config = small(train__augment="flip_shift")
        training = make_training(config)
        training.train.targets = training.train.sources  # pairs that are moved together stay equal
        first = self.batches_seen(training, monkeypatch)
        assert all(torch.equal(*pair) for pair in first)
        again = self.batches_seen(make_training(config), monkeypatch)
        assert all(torch.equal(one[0], other[0]) for one, other in zip(first, again, strict=True))
        plain = self.batches_seen(make_training(small()), monkeypatch)
        assert not all(torch.equal(one[0], other[0]) for one, other in zip(first, plain, strict=True))


class TestAveragedGenerator:
    @pytest.fixture
    def training(self, make_training, small):
        return make_training(small(train__ema_decay=0.5))

    def test_averaged_generator_is_evaluated(self, training, monkeypatch):
        evaluated = []
        monkeypatch.setattr(
            loop, "evaluate",
            lambda generator, *rest, **more: evaluated.append(generator) or evaluate(generator, *rest, **more),
        )  # fmt: skip
        train_epoch(training)
        assert evaluated == [training.state.average]

    def test_averaged_generator_is_saved_under_weight_names_of_generator(self, training, tmp_path):
        train_epoch(training)
        save_epoch(training, tmp_path)
        stored = load_file(tmp_path / BEST)
        average, generator = training.state.average.state_dict(), training.state.generator.state_dict()
        assert stored.keys() == generator.keys()
        assert all(torch.equal(stored[name], average[name]) for name in stored)
        assert not all(torch.equal(stored[name], generator[name]) for name in stored)

    def test_averaged_generator_is_restored(self, make_training, small, training, tmp_path):
        train_epoch(training)
        save_epoch(training, tmp_path)
        again = make_training(small(train__ema_decay=0.5))
        restore(tmp_path, again.state)
        for one, other in zip(again.state.average.parameters(), training.state.average.parameters(), strict=True):
            assert torch.equal(one, other)


class TestSaving:
    def test_save_epoch_keeps_best_generator_and_pictures(self, make_training, tmp_path):
        training = make_training()
        for value, best in [(0.5, True), (0.4, False), (0.6, True), (0.6, True)]:
            train_epoch(training)["val/ssim"] = value
            save_epoch(training, tmp_path)
            stored, now = load_file(tmp_path / BEST), training.state.generator.state_dict()
            assert all(torch.equal(stored[name], now[name]) for name in now) == best
        assert len(read_history(tmp_path)) == 4
        with np.load(tmp_path / PICTURES) as pictures:
            assert set(pictures) == {"source", "output", "target", "titles"}
        assert {path.name for path in tmp_path.iterdir()} == {LAST, BEST, PICTURES}

    def test_failed_save_epoch_does_not_extend_history(self, make_training, tmp_path, monkeypatch):
        """A failure while saving must not leave a history with an epoch whose generator was not kept."""
        training = make_training()
        train_epoch(training)
        save_epoch(training, tmp_path)
        train_epoch(training)["val/ssim"] = 0.999

        def crash(self, target):
            if target.name in (BEST, PICTURES, LAST):
                raise OSError("the disk is full")

        monkeypatch.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="full"):
            save_epoch(training, tmp_path)
        assert len(read_history(tmp_path)) == 1
