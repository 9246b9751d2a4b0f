import json

import pytest
import torch
from safetensors import safe_open

from medgan.training import checkpoint
from medgan.training.checkpoint import LAST, read_history, restore, save_state, save_tensors
from medgan.training.loop import save_epoch, train_epoch
from medgan.training.state import tensors


def without_times(history):
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in history]


@pytest.mark.parametrize("generator_steps", [2, 3])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_restored_training_is_bit_identical_to_uninterrupted_training(
    make_training, small, tmp_path, norm, generator_steps
):
    config = small(generator__norm=norm, train__generator_steps=generator_steps)
    straight = make_training(config)
    train_epoch(straight)
    train_epoch(straight)

    first = make_training(config)
    train_epoch(first)
    save_epoch(first, tmp_path)
    torch.manual_seed(12345)  # as a new process has another random state
    second = make_training(config)
    assert restore(tmp_path, second.state)
    assert second.state.epoch == 1
    train_epoch(second)

    expected = tensors(straight.state)
    assert tensors(second.state).keys() == expected.keys()
    assert [name for name, value in tensors(second.state).items() if not torch.equal(value, expected[name])] == []
    assert without_times(second.state.history) == without_times(straight.state.history)


@pytest.mark.parametrize(
    "method",
    [
        {"loss__lambda_cycle": 1.0, "loss__cycle_share": [0.1, 0.5], "optim__schedule": "linear"},
        {"loss__lambda_adversarial": 0.0, "loss__lambda_perceptual": 0.0, "loss__lambda_l1": 1.0},
        {"train__augment": "flip_shift", "train__ema_decay": 0.9, "train__discriminator_steps": 2},
        {"loss__adversarial": "wasserstein", "loss__lambda_gradient_penalty": 1.0, "train__precision": "bfloat16"},
        {"generator__norm": "batch", "train__ema_decay": 0.9, "generator__dropout": 0.5},
    ],
    ids=["cycle", "no-discriminator", "augmented-averaged", "penalty", "batch-averaged"],
)
def test_restored_training_of_every_kind_of_method_is_bit_identical(make_training, small, tmp_path, method):
    config = small(**method, train__epochs=4)
    straight, first = make_training(config), make_training(config)
    for training in (straight, straight, first):
        train_epoch(training)
    save_epoch(first, tmp_path)
    torch.manual_seed(12345)  # as a new process has another random state
    second = make_training(config)
    assert restore(tmp_path, second.state)
    train_epoch(second)
    expected, found = tensors(straight.state), tensors(second.state)
    assert found.keys() == expected.keys()
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []
    assert without_times(second.state.history) == without_times(straight.state.history)


def test_restore_from_new_folder_changes_nothing(small, make_state, tmp_path):
    state = make_state(small())
    before = {name: value.clone() for name, value in tensors(state).items()}
    assert restore(tmp_path / "none", state) is False
    assert read_history(tmp_path / "none") == []
    assert all(torch.equal(value, before[name]) for name, value in tensors(state).items())


def test_save_state_writes_state_and_history_to_one_file_without_pickle(small, make_state, tmp_path):
    state = make_state(small())
    state.history.append({"val/ssim": 0.5})
    save_state(tmp_path / "deep" / "down", state)
    (path,) = (tmp_path / "deep" / "down").iterdir()
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(tensors(state))
        assert json.loads(file.metadata()["history"]) == [{"val/ssim": 0.5}]
    content = path.read_bytes()
    assert content[8:9] == b"{", "safetensors: a length, then JSON"
    assert not any(mark in content for mark in (b"PK\x03\x04", b"ctorch\n", b"collections\n", b"pickle"))


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_interrupted_save_tensors_leaves_earlier_file(tmp_path, monkeypatch, moment):
    path = tmp_path / LAST
    save_tensors(path, {"a": torch.ones(2)}, {"history": [1]})
    earlier = path.read_bytes()

    def crash(*arguments, **keywords):
        raise OSError("the disk is full")

    def half(values, part, metadata):
        part.write_bytes(b"half a file")
        crash()

    if moment == "write":
        monkeypatch.setattr(checkpoint, "save_file", half)
    elif moment == "fsync":
        monkeypatch.setattr(checkpoint.os, "fsync", crash)
    else:
        monkeypatch.setattr(checkpoint.Path, "replace", crash)
    with pytest.raises(OSError, match="full"):
        save_tensors(path, {"a": torch.zeros(2)}, {"history": [2]})
    monkeypatch.undo()
    assert path.read_bytes() == earlier
    save_tensors(path, {"a": torch.zeros(2)}, {"history": [2]})
    assert read_history(tmp_path) == [2]
    assert [file.name for file in tmp_path.iterdir()] == [LAST]


def test_read_history_of_state_deleted_meanwhile_is_empty(tmp_path, monkeypatch):
    def deleted(path, framework):
        path.unlink()
        raise RuntimeError(f"unable to open file <{path}>")

    (tmp_path / checkpoint.LAST).write_bytes(b"state")
    monkeypatch.setattr(checkpoint, "safe_open", deleted)
    assert checkpoint.read_history(tmp_path) == []


def test_read_history_of_damaged_state_is_an_error(tmp_path):
    (tmp_path / checkpoint.LAST).write_bytes(b"no state")
    with pytest.raises(Exception, match="header"):
        checkpoint.read_history(tmp_path)
