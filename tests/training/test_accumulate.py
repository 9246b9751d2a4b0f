"""A batch in parts gives the same update as the whole batch and needs the memory of one part."""

import itertools
from dataclasses import fields

import pytest
import torch
from torch import nn

from medgan.training.build_objective import build_objective
from medgan.training.build_training import updates_of
from medgan.training.state import tensors
from medgan.training.step import added, split, train_step, update_discriminator, update_generator

TERMS = ("adversarial", "perceptual", "l1", "l2", "tv", "stages")
METHODS = {
    "one direction": {f"loss__lambda_{term}": 1.0 for term in TERMS} | {"train__generator_steps": 3},
    "cycle": {"loss__lambda_cycle": 10.0, "loss__lambda_identity": 1.0, "loss__adversarial": "lsgan"},
    "three discriminator updates": {
        "train__generator_steps": 1,
        "train__discriminator_steps": 3,
        "train__pool_size": 4,
    },
    "clipped": {"optim__clip_norm": 1e-3, "optim__clip_weights": 0.01, "train__ema_decay": 0.9},
}


@pytest.fixture
def trained(small, make_state, batches):
    """Returns a function: losses and tensors of two steps in float64, with batches of four in `parts` parts."""

    def train(parts, **method):
        config = small(train__batch_size=4, train__accumulate=parts, discriminator__spectral_norm=False, **method)
        state = make_state(config)
        for network in (
            *(direction.generator for direction in state.directions),
            *(direction.discriminator for direction in state.directions),
        ):
            network.double()
        if state.average is not None:
            state.average.double()
        pairs = batches(dtype=torch.float64)
        fours = (tuple(map(torch.cat, zip(*itertools.islice(pairs, 2), strict=True))) for _ in itertools.count())
        torch.manual_seed(0)
        rows = [train_step(state, build_objective(config), fours, updates_of(config)) for _ in range(2)]
        return rows, tensors(state)

    return train


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [2, 4])
def test_train_step_in_parts_equals_train_step_on_whole_batch(method, parts, trained):
    (whole, weights), (rows, same) = (trained(number, **METHODS[method]) for number in (1, parts))
    for row, other in zip(whole, rows, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-12)
    for name, value in weights.items():
        torch.testing.assert_close(
            same[name], value, rtol=1e-6, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_gradients_of_parts_add_up_to_those_of_whole_batch(small, make_state, batches):
    gradients = []
    for parts in (1, 2):
        config = small(train__accumulate=parts, discriminator__spectral_norm=False)
        state, objective, batch = make_state(config), build_objective(config), next(batches(dtype=torch.float64))
        direction = state.directions[0]
        for network in (direction.generator, direction.discriminator):
            network.double()
        state.generator_optimizer = torch.optim.SGD(direction.generator.parameters(), lr=0.0)
        seen, _ = update_generator(state, objective, batch, updates_of(config))
        update_discriminator(state, objective, seen, updates_of(config))
        gradients.append([weight.grad for network in (direction.generator, direction.discriminator)
                          for weight in network.parameters()])  # fmt: skip
    for whole, added_up in zip(*gradients, strict=True):
        torch.testing.assert_close(added_up, whole, rtol=1e-9, atol=1e-12)


def test_discriminator_sees_last_batch_in_parts_and_outputs_before_update(small, make_state, batches):
    config = small(train__accumulate=2)
    state, outputs, seen_pairs = make_state(config), [], []
    state.generator.register_forward_hook(lambda module, images, output: outputs.append(output))
    state.directions[0].discriminator.register_forward_pre_hook(lambda module, pair: seen_pairs.append(pair))
    drawn = list(itertools.islice(batches(), 3))
    train_step(state, build_objective(config), iter(drawn), updates_of(config))
    assert [len(output) for output in outputs] == [1] * 6, "three batches in two parts each"
    last_turn = seen_pairs[-4:]
    for real, fake, output, number in zip(last_turn[::2], last_turn[1::2], outputs[-2:], (0, 1), strict=True):
        source, target = (images[number : number + 1] for images in drawn[-1])
        assert torch.equal(real[0], source)
        assert torch.equal(real[1], target)
        assert torch.equal(fake[0], source)
        assert torch.equal(fake[1], output)
        assert not fake[1].requires_grad


def most_kept(config, state, batch):
    """Returns the most bytes, weights not counted, that a generator update keeps for backward at the same time."""
    held, most = {weight.untyped_storage().data_ptr(): (1, 0) for weight in state.generator.parameters()}, [0]

    class Kept:
        def __init__(self, tensor):
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            count, size = held.get(self.key, (0, tensor.untyped_storage().nbytes()))
            held[self.key] = count + 1, size
            most[0] = max(most[0], sum(size for _, size in held.values()))

        def __del__(self):
            count, size = held.pop(self.key)
            if count > 1:
                held[self.key] = count - 1, size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        update_generator(state, build_objective(config), batch, updates_of(config))
    return most[0]


@pytest.mark.parametrize(
    ("setting", "share"), [({"train__accumulate": 4}, 0.4), ({"generator__recompute": "blocks"}, 0.25)]
)
def test_accumulate_and_recompute_keep_fewer_bytes_for_backward(setting, share, small, make_state):
    plain = {"generator__num_blocks": 6, "generator__base_channels": 4, "train__batch_size": 8, "data__size": 32,
             "loss__lambda_adversarial": 0.0, "loss__lambda_perceptual": 0.0, "loss__lambda_l1": 1.0}  # fmt: skip
    batch = tuple(torch.rand(2, 8, 1, 32, 32) * 2 - 1)
    before, after = (
        most_kept(config, make_state(config), batch) for config in (small(**plain), small(**plain, **setting))
    )
    assert after < share * before


def test_update_generator_keeps_only_output_of_each_part(small, make_state, batches):
    config = small(loss__lambda_stages=1.0)
    ((inputs,),), _ = update_generator(make_state(config), build_objective(config), next(batches()), updates_of(config))
    assert inputs.within == ()
    assert vars(inputs).keys() == {one.name for one in fields(inputs)}, "no cached value is kept"
    assert not inputs.output.requires_grad


def test_split_divides_batch_along_images_in_order():
    source, target = torch.arange(4).reshape(4, 1), torch.arange(4, 8).reshape(4, 1)
    assert [(one.flatten().tolist(), other.flatten().tolist()) for one, other in split((source, target), 2)] == [
        ([0, 1], [4, 5]),
        ([2, 3], [6, 7]),
    ]


def test_added_sums_losses_over_directions_and_averages_over_parts():
    rows = [{"l1": torch.tensor(value)} for value in (1.0, 2.0, 3.0, 4.0)]  # two parts, two directions
    assert added(rows, parts=2)["l1"] == 5.0


@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated")
def test_ranks_average_gradients_once_per_update(small, make_state, batches, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        config = small(train__accumulate=2, train__generator_steps=1)
        state, reduced = make_state(config), []
        direction = state.directions[0]
        direction.generator, direction.discriminator = (
            nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
            for network in (direction.generator, direction.discriminator)
        )
        for name, network in (("generator", direction.generator), ("discriminator", direction.discriminator)):
            network.register_comm_hook(name, lambda name, bucket: reduced.append(name) or done(bucket.buffer()))
        train_step(state, build_objective(config), batches(), updates_of(config))
        assert reduced == ["generator", "discriminator"]
    finally:
        torch.distributed.destroy_process_group()


def done(value):
    """Returns a future that is done."""
    future = torch.futures.Future()
    future.set_result(value)
    return future
