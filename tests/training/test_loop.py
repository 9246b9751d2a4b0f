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


def test_a_row_holds_losses_validation_metrics_and_times(make_training):
    training = make_training()
    row = train_epoch(training)
    terms = ("adversarial", "perceptual")
    assert set(row) == {
        "loss/discriminator", *(f"loss/generator/{term}{form}" for term in terms for form in ("", "_weighted")),
        "time/data_s", "time/train_s", "time/epoch_s", *(name for name in row if name.startswith("val/")),
    }  # fmt: skip
    assert {"val/ssim", "val/psnr", "val/mse", "val/mae_hu", "val/mae_hu_body"} <= set(row)
    assert all(np.isfinite(value) for value in row.values())
    assert 0 < row["time/data_s"] <= row["time/train_s"] <= row["time/epoch_s"]
    assert training.state.history == [row]
    assert json.loads(json.dumps(row)) == row


def test_losses_are_means_over_the_epochs_steps(make_training, small, monkeypatch):
    values = iter([1.0, 2.0, 6.0])

    def step(state, objective, batches, updates):
        next(batches)
        return {"discriminator": torch.tensor(next(values))}

    monkeypatch.setattr(loop, "train_step", step)
    assert train_epoch(make_training(small(train__generator_steps=1)))["loss/discriminator"] == 3.0


@pytest.mark.parametrize(("generator_steps", "expected"), [(1, [0, 3, 6, 9]), (2, [0, 1, 3, 4]), (3, [0, 1, 2, 3])])
def test_batches_left_over_are_carried_to_the_next_epoch(make_training, small, generator_steps, expected):
    training = make_training(small(train__generator_steps=generator_steps))
    assert [steps_before(training, epoch) for epoch in range(4)] == expected


def test_epochs_use_the_stream_of_batches_without_gap_or_repetition(make_training, small, monkeypatch):
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


def test_the_first_batch_is_announced_once_an_epoch(make_training):
    training = make_training()
    calls = []
    training.on_first_step = lambda: calls.append(training.state.epoch)
    train_epoch(training)
    assert calls == [0]


def test_a_loss_that_is_not_finite_names_itself_and_the_epoch(make_training):
    training = make_training()
    train_epoch(training)
    with torch.no_grad():
        next(training.state.directions[0].discriminator.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, check=refusal("E-TRAIN-02", mean="nan", epoch="2")):
        train_epoch(training)
    assert training.state.epoch == 1


def test_training_depends_on_the_seed_alone(make_training, small):
    rows = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(rows))
        rows.append(train_epoch(make_training(small(train__seed=seed)))["loss/generator/perceptual"])
    assert rows[0] == rows[1] != rows[2]


@dataclass
class SlowerNeighbor:
    """The first of two ranks; the other takes as long plus ten seconds, and everything it is asked is recorded."""

    asked: list
    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    def mean(self, values):
        self.asked.append("mean")
        return {name: value + (5.0 if name.startswith("time/") else 0.0) for name, value in values.items()}

    def agree(self, module):
        self.asked.append(module)

    def gather(self, rows):
        self.asked.append("gather")
        return list(rows)


class TestWhatTheRanksShare:
    def test_times_are_means_over_the_ranks(self, make_training):
        """Every rank's history must be the same, for the length of a training follows from it."""
        training = make_training()
        training.runtime = SlowerNeighbor([])
        row = train_epoch(training)
        assert 5 < row["time/train_s"] <= row["time/epoch_s"] < 5 + 60

    def test_they_agree_on_what_is_evaluated_after_the_last_step_and_before_the_evaluation(
        self, make_training, small, monkeypatch
    ):
        training = make_training(small(train__ema_decay=0.9))
        asked = []
        training.runtime = SlowerNeighbor(asked)
        step = loop.train_step
        monkeypatch.setattr(loop, "train_step", lambda *arguments: asked.append("step") or step(*arguments))
        training.state.average.register_forward_pre_hook(lambda module, images: asked.append("evaluate"))
        train_epoch(training)
        place = asked.index(training.state.best_generator)
        assert "step" not in asked[place:]
        assert "evaluate" not in asked[:place]
        assert "evaluate" in asked[place:]

    def test_they_agree_on_the_generator_in_training_too_which_a_restart_reads_from_one_of_them(
        self, make_training, small
    ):
        """Else the average of a training that goes on starts from another rank's batch normalization."""
        training = make_training(small(train__ema_decay=0.9, generator__norm="batch"))
        training.runtime = SlowerNeighbor([])
        train_epoch(training)
        assert any(asked is training.state.generator for asked in training.runtime.asked)
        assert any(asked is training.state.average for asked in training.runtime.asked)


class TestAugmentation:
    def batches_seen(self, training, monkeypatch):
        seen = []

        def step(state, objective, batches, updates):
            seen.extend(next(batches) for _ in range(updates.batches))
            return {"discriminator": torch.zeros(())}

        monkeypatch.setattr(loop, "train_step", step)
        train_epoch(training)
        return seen

    def test_pairs_are_moved_together_and_the_same_way_in_a_repeated_epoch(self, make_training, small, monkeypatch):
        config = small(train__augment="flip_shift")
        training = make_training(config)
        training.train.targets = training.train.sources  # what is moved together stays equal
        first = self.batches_seen(training, monkeypatch)
        assert all(torch.equal(*pair) for pair in first)
        again = self.batches_seen(make_training(config), monkeypatch)
        assert all(torch.equal(one[0], other[0]) for one, other in zip(first, again, strict=True))
        plain = self.batches_seen(make_training(small()), monkeypatch)
        assert not all(torch.equal(one[0], other[0]) for one, other in zip(first, plain, strict=True))


class TestTheAveragedGenerator:
    @pytest.fixture
    def training(self, make_training, small):
        return make_training(small(train__ema_decay=0.5))

    def test_it_is_what_is_evaluated(self, training, monkeypatch):
        evaluated = []
        monkeypatch.setattr(
            loop, "evaluate",
            lambda generator, *rest, **more: evaluated.append(generator) or evaluate(generator, *rest, **more),
        )  # fmt: skip
        train_epoch(training)
        assert evaluated == [training.state.average]

    def test_it_is_what_is_kept_under_the_generators_own_names(self, training, tmp_path):
        train_epoch(training)
        save_epoch(training, tmp_path)
        stored = load_file(tmp_path / BEST)
        average, generator = training.state.average.state_dict(), training.state.generator.state_dict()
        assert stored.keys() == generator.keys()
        assert all(torch.equal(stored[name], average[name]) for name in stored)
        assert not all(torch.equal(stored[name], generator[name]) for name in stored)

    def test_it_is_restored(self, make_training, small, training, tmp_path):
        train_epoch(training)
        save_epoch(training, tmp_path)
        again = make_training(small(train__ema_decay=0.5))
        restore(tmp_path, again.state)
        for one, other in zip(again.state.average.parameters(), training.state.average.parameters(), strict=True):
            assert torch.equal(one, other)


class TestSaving:
    def test_the_best_generator_and_its_pictures_are_kept(self, make_training, tmp_path):
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

    def test_the_best_generator_is_never_older_than_the_history(self, make_training, tmp_path, monkeypatch):
        """A crash while saving must not leave a history that names an epoch whose generator was not kept."""
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
