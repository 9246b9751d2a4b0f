"""Properties that every generator has."""

import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.models.casnet import CasNet
from medgan.models.discogan import DiscoGenerator
from medgan.models.fila_sgan import FilamentGenerator
from medgan.models.id_cgan import ShallowNet
from medgan.models.resnet import ResNet
from medgan.models.vae import VariationalNet

pytestmark = pytest.mark.unit

CASNET = {"num_blocks": 2, "base_channels": 4, "depth": 3}
GENERATORS = {
    "casnet": (CasNet, CASNET, 8),
    "casnet-dropout": (CasNet, CASNET | {"dropout": 0.5}, 8),
    "casnet-source": (CasNet, CASNET | {"block_input": "previous_and_source"}, 8),
    "casnet-residual": (CasNet, CASNET | {"block": "residual"}, 8),
    "casnet-double": (CasNet, CASNET | {"block": "double"}, 8),
    "resnet": (ResNet, {"base_channels": 4, "num_blocks": 2}, 8),
    "shallow": (ShallowNet, {"base_channels": 4}, 2),
    "filament": (FilamentGenerator, {"base_channels": 4}, 64),
    "discogan": (DiscoGenerator, {"base_channels": 4}, 16),
    "variational": (VariationalNet, {"base_channels": 4}, 16),
}
"""Name -> class, small settings, smallest side."""


@pytest.fixture(params=GENERATORS)
def generator(request):
    """The class with its small settings, and the smallest side it takes."""
    kind, settings, smallest = GENERATORS[request.param]
    torch.manual_seed(0)
    return lambda **more: kind(**settings | more), smallest


def widely_drawn(network):
    """Weights that neither shrink nor blow up a signal, so that every layer affects the output."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.2)
    return network


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize(("tall", "wide"), [(1, 1), (1, 2), (3, 1)])
def test_generator_keeps_image_size_in_training(generator, norm, tall, wide):
    build, smallest = generator
    source = torch.randn(1, 1, tall * smallest, wide * smallest)
    output = build(norm=norm).train()(source)
    assert output.shape == source.shape
    assert output.isfinite().all()


@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 1), (1, 2)])
def test_generator_accepts_chosen_numbers_of_channels(generator, in_channels, out_channels):
    build, smallest = generator
    network = build(in_channels=in_channels, out_channels=out_channels)
    output = network(torch.randn(2, in_channels, smallest, smallest))
    assert output.shape == (2, out_channels, smallest, smallest)


def test_generator_accepts_multiples_of_divisor_from_smallest_side(generator):
    build, smallest = generator
    network = build()
    assert isinstance(network.divisor, int)
    assert smallest % network.divisor == 0
    side = smallest + network.divisor
    assert network(torch.zeros(1, 1, side, smallest)).shape == (1, 1, side, smallest)


def test_generator_output_stays_within_minus_one_and_one(generator):
    build, smallest = generator
    network = widely_drawn(build())
    with torch.no_grad():
        output = network(100 * torch.randn(1, 1, 2 * smallest, smallest))
    assert 0 < float(output.abs().max()) <= 1
    assert any(isinstance(module, nn.Tanh) for module in network.modules())


def test_generator_output_depends_on_source(generator):
    build, smallest = generator
    network = widely_drawn(build()).eval()
    with torch.no_grad():
        one, other = network(torch.randn(2, 1, 2 * smallest, 2 * smallest))
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_generator_in_evaluation_is_deterministic_for_each_image(generator, norm):
    build, smallest = generator
    network = widely_drawn(build(norm=norm)).eval()
    sources = torch.randn(2, 1, 2 * smallest, 2 * smallest)
    with torch.no_grad():
        first, second = network(sources), network(sources)
        alone = torch.cat([network(sources[:1]), network(sources[1:])])
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-4)


def test_generator_gradients_reach_every_parameter_and_source(generator):
    build, smallest = generator
    network = widely_drawn(build(norm="none")).double().train()
    side = max(2 * smallest, 32)  # enough pixels for both sides of every activation
    source = torch.randn(2, 1, side, side, dtype=torch.float64, requires_grad=True)
    (network(source) * torch.randn_like(source)).sum().backward()
    assert source.grad.abs().sum() > 0
    assert [name for name, weight in network.named_parameters() if not weight.grad.any()] == []


def test_generator_weights_are_float32_finite_and_not_shared(generator):
    build, _ = generator
    weights = list(build(norm="none").parameters())
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights)
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)
    matrices = [weight.flatten() for weight in weights if weight.ndim > 1 and weight.numel() > 1]
    assert all(not torch.equal(one, two) for one, two in zip(matrices, matrices[1:], strict=False))


def test_generator_convolutions_start_at_pix2pix_values(generator):
    build, _ = generator
    network = build(base_channels=16)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    kernels = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert float(kernels.std()) == pytest.approx(0.02, rel=0.02)
    assert not any(layer.bias.any() for layer in layers)


def test_generator_refuses_sides_that_divisor_does_not_divide(generator):
    build, smallest = generator
    network = build()
    if network.divisor == 1:
        pytest.skip("every side is a multiple of 1")
    odd = smallest + network.divisor // 2
    for rows, columns in ((odd, smallest), (smallest, odd)):
        with pytest.raises(
            ValueError, check=refusal("E-NETWORK-13", divisor=network.divisor, rows=rows, columns=columns)
        ):
            network(torch.zeros(1, 1, rows, columns))


def test_generator_refuses_unknown_norm(generator):
    build, _ = generator
    with pytest.raises(ValueError, check=refusal("E-NETWORK-10", kind="layer")):
        build(norm="layer")
