"""Arithmetic in bfloat16: faster networks, the same weights, losses in float32."""

import copy

import pytest
import torch

from medgan.config import Config, with_values
from medgan.losses import style
from medgan.training.build_networks import build_generator
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.mixed_precision import in_precision
from medgan.training.runtime import SingleProcess
from medgan.training.state import tensors
from medgan.training.step import generator_inputs, train_step, update_generator

pytestmark = pytest.mark.unit

CPU = SingleProcess(torch.device("cpu"))
METHOD = {
    "data.size": 16, "generator.base_channels": 4, "generator.num_blocks": 2, "discriminator.base_channels": 4,
    "loss.lambda_perceptual": 20.0, "loss.lambda_style": 1.0, "loss.lambda_content": 1.0, "loss.lambda_stages": 1.0,
    "loss.style_blocks": [1, 2], "loss.content_blocks": [1, 2], "train.ema_decay": 0.9,
}  # fmt: skip


def configured(precision, **more):
    values = METHOD | {name.replace("__", "."): value for name, value in more.items()}
    return with_values(Config(), values | {"train.precision": precision})


def batch():
    draw = torch.Generator().manual_seed(0)
    return tuple((torch.rand(2, 2, 1, 16, 16, generator=draw) * 2 - 1).unbind())


def one_step(config):
    """Returns the state after a step, and the logged losses."""
    state = build_state(config, CPU)
    return state, train_step(state, build_objective(config), iter([batch()]), updates_of(config))


@pytest.fixture(scope="module")
def both():
    """Precision -> state and losses after one step."""
    return {precision: one_step(configured(precision)) for precision in ("float32", "bfloat16")}


def test_networks_compute_in_bfloat16(both):
    state, _ = both["bfloat16"]
    kinds = []
    for network in (state.generator.blocks[0].last[0], state.directions[0].discriminator.last):
        network.register_forward_hook(lambda module, images, output: kinds.append(output.dtype))
    state.directions[0].discriminator(batch()[0], state.generator(batch()[0]))
    assert kinds == [torch.bfloat16] * 2


def test_losses_in_bfloat16_are_float32_and_close_to_those_in_float32(both):
    (_, exact), (_, rough) = both["float32"], both["bfloat16"]
    assert rough.keys() == exact.keys()
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert float(value) == pytest.approx(float(exact[name]), rel=0.05, abs=1e-4), name
    assert any(float(rough[name]) != float(exact[name]) for name in rough)


def test_state_tensors_in_bfloat16_keep_names_and_are_float32(both):
    exact, rough = tensors(both["float32"][0]), tensors(both["bfloat16"][0])
    assert rough.keys() == exact.keys()
    assert {value.dtype for value in rough.values()} == {torch.float32}


def test_outputs_of_networks_are_float32(both):
    state, _ = both["bfloat16"]
    source, target = batch()
    assert state.generator(source).dtype == torch.float32
    assert state.average(source).dtype == torch.float32
    assert [stage.dtype for stage in state.generator(source, every_block=True)] == [torch.float32] * 2
    patches = state.directions[0].discriminator(source, target)
    assert type(patches).__name__ == "PatchOutput"
    assert {patches.logits.dtype, *(level.dtype for level in patches.features)} == {torch.float32}
    assert {level.dtype for level in state.extractor(target)} == {torch.float32}


def test_gradients_in_bfloat16_are_float32_and_keep_direction():
    gradients = []
    for precision in ("float32", "bfloat16"):
        config = configured(precision)
        state, objective = build_state(config, CPU), build_objective(config)
        update_generator(state, objective, batch(), updates_of(config))
        assert all(parameter.grad.dtype == torch.float32 for parameter in state.generator.parameters())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in state.generator.parameters()]))
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.9


def test_gram_matrices_are_computed_in_float32(monkeypatch):
    seen, gram = [], style.gram

    def watched(features):
        matrix = gram(features)
        seen.append((features.dtype, matrix.dtype, torch.is_autocast_enabled("cpu")))
        return matrix

    monkeypatch.setattr(style, "gram", watched)
    one_step(configured("bfloat16"))
    assert seen == [(torch.float32, torch.float32, False)] * 4  # two blocks of output and target


def test_gradient_penalty_is_finite_in_bfloat16():
    config = configured("bfloat16", loss__adversarial="wasserstein", loss__lambda_gradient_penalty=10.0)
    _, losses = one_step(config)
    assert losses["discriminator_gradient_penalty"].isfinite()


def test_kl_divergence_of_latent_is_computed_in_float32():
    config = with_values(
        Config(),
        {
            "data.size": 16, "generator.network": "variational", "generator.base_channels": 4, "loss.lambda_kl": 1.0,
            "loss.lambda_adversarial": 0.0, "loss.lambda_l1": 1.0, "train.precision": "bfloat16",
        },
    )  # fmt: skip
    state, objective = build_state(config, CPU), build_objective(config)
    (inputs,) = generator_inputs(state, objective, *batch())
    assert [one.dtype for one in inputs.within] == [torch.float32] * 2
    _, losses = one_step(config)
    assert losses["kl"].dtype == torch.float32 and losses["kl"].isfinite()


def test_copy_of_network_computes_with_own_weights():
    config = configured("bfloat16")
    network = in_precision(build_generator(config), "bfloat16", torch.device("cpu"))
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(batch()[0]).abs().max() == 0
    assert network(batch()[0]).abs().max() > 0


def test_in_precision_leaves_float32_network_unchanged():
    network = build_generator(configured("float32"))
    assert in_precision(network, "float32", torch.device("cpu")) is network
    assert "forward" not in vars(network)
