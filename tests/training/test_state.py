import pytest
import torch
from torch import nn

from medgan.training.build_objective import build_objective
from medgan.training.runtime import SingleProcess
from medgan.training.state import bare, load_tensors, tensors
from medgan.training.step import Updates, train_step

pytestmark = pytest.mark.unit


def test_load_tensors_is_inverse_of_tensors(small, make_state, batches):
    config = small()
    trained, fresh = make_state(config), make_state(small(train__seed=99))
    train_step(trained, build_objective(config), batches(), updates=Updates(generator=3))
    saved = tensors(trained)
    load_tensors(fresh, saved)
    assert tensors(fresh).keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in tensors(fresh).items())


def test_tensors_hold_networks_and_moments_of_both_optimizers(small, make_state, batches):
    state = make_state(small())
    assert not any("optimizer" in name for name in tensors(state))
    train_step(state, build_objective(small()), batches(), updates=Updates(generator=3))
    saved = tensors(state)
    for name in ("generator", "discriminator"):
        count = len(list(getattr(state.directions[0], name).parameters()))
        moments = [key for key in saved if key.startswith(f"{name}_optimizer.")]
        assert len(moments) == 3 * count, "step, first and second moment of every parameter"
    assert float(saved["generator_optimizer.0.step"]) == 3
    assert float(saved["discriminator_optimizer.0.step"]) == 1


def test_load_tensors_keeps_learning_rate_of_new_state(small, make_state, batches):
    old, new = make_state(small()), make_state(small(optim__generator_lr=0.01))
    train_step(old, build_objective(small()), batches(), updates=Updates(generator=1))
    load_tensors(new, tensors(old))
    assert new.generator_optimizer.param_groups[0]["lr"] == 0.01


def test_epoch_of_state_is_number_of_history_rows(small, make_state):
    state = make_state(small())
    assert state.epoch == 0
    state.history.append({"val/ssim": 0.5})
    assert state.epoch == 1


def test_single_process_is_runtime_of_one_rank():
    runtime = SingleProcess(torch.device("cpu"))
    module = nn.Linear(1, 1)
    assert (runtime.rank, runtime.size) == (0, 1)
    assert bare(runtime.prepare(module)) is module
    assert runtime.mean({"a": 1.5}) == {"a": 1.5}
    assert runtime.gather([1, 2]) == [1, 2]
