"""Properties that every discriminator has."""

import pytest
import torch
from refusal import refusal
from torch import nn
from torch.nn.utils import parametrize

from medgan.models.began import AutoencoderDiscriminator
from medgan.models.discogan import DiscoDiscriminator
from medgan.models.fila_sgan import FilamentDiscriminator
from medgan.models.patchgan import PatchDiscriminator, PatchOutput
from medgan.models.refinegan import ResidualDiscriminator

pytestmark = pytest.mark.unit

DISCRIMINATORS = {
    "patch-1": (PatchDiscriminator, {"patch": 1}, 2),
    "patch-16": (PatchDiscriminator, {"patch": 16}, 16),
    "patch-34": (PatchDiscriminator, {"patch": 34}, 34),
    "patch-70": (PatchDiscriminator, {"patch": 70}, 70),
    "residual": (ResidualDiscriminator, {}, 32),
    "filament": (FilamentDiscriminator, {}, 32),
    "discogan": (DiscoDiscriminator, {}, 64),
    "autoencoder": (AutoencoderDiscriminator, {}, 32),
}
"""Name -> class, settings, smallest side."""


@pytest.fixture(params=DISCRIMINATORS)
def discriminator(request):
    """The class with its settings, made small, and the smallest side it takes."""
    kind, settings, smallest = DISCRIMINATORS[request.param]
    torch.manual_seed(0)
    return lambda **more: kind(**{"base_channels": 4} | settings | more), smallest


def widely_drawn(network):
    """Weights that neither shrink nor blow up a signal, so that every layer affects the logits."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.2)
    return network


def pair(side, channels=(1, 1), batch=1):
    return tuple(torch.randn(batch, number, side, side + 5) for number in channels)


@pytest.mark.parametrize("sees", ["source_and_image", "image"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_discriminator_accepts_one_image_of_smallest_size_in_training(discriminator, sees, norm, spectral_norm):
    build, smallest = discriminator
    network = build(sees=sees, norm=norm, spectral_norm=spectral_norm).train()
    assert network.least == smallest
    output = network(*pair(smallest))
    assert isinstance(output, PatchOutput)
    assert output.logits.shape[:2] == (1, 1)
    assert output.logits.ndim == 4
    assert output.logits.isfinite().all()
    assert isinstance(output.features, tuple)
    assert output.features
    assert all(level.ndim == 4 and level.isfinite().all() for level in output.features)


@pytest.mark.parametrize(("sees", "source_channels", "entering"), [("source_and_image", 3, 5), ("image", 3, 2)])
def test_discriminator_accepts_chosen_numbers_of_channels(discriminator, sees, source_channels, entering):
    build, smallest = discriminator
    network = build(sees=sees, source_channels=source_channels, image_channels=2)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == entering
    assert network(*pair(smallest, (3, 2), batch=2)).logits.shape[:2] == (2, 1)


def test_conditional_discriminator_depends_on_source_image_and_order(discriminator):
    build, smallest = discriminator
    network = widely_drawn(build(sees="source_and_image")).eval()
    source, image = pair(2 * smallest)
    other = torch.randn_like(source)
    with torch.no_grad():
        first = network(source, image)
        for changed in (network(other, image), network(source, other), network(image, source)):
            assert not torch.allclose(first.logits, changed.logits, atol=1e-4)
            assert all(
                not torch.allclose(one, two, atol=1e-4)
                for one, two in zip(first.features, changed.features, strict=True)
            )


def test_unconditional_discriminator_ignores_source(discriminator):
    build, smallest = discriminator
    network = widely_drawn(build(sees="image")).eval()
    source, image = pair(2 * smallest)
    other = torch.randn_like(source)
    with torch.no_grad():
        assert torch.equal(network(source, image).logits, network(other, image).logits)
        assert not torch.allclose(network(source, image).logits, network(source, other).logits, atol=1e-4)


@pytest.mark.parametrize("sees", ["source_and_image", "image"])
def test_discriminator_features_and_logits_carry_gradient_to_image(discriminator, sees):
    build, smallest = discriminator
    network = widely_drawn(build(sees=sees))
    source, image = pair(2 * smallest)
    image.requires_grad_(True)
    output = network(source, image)
    for level in (*output.features, output.logits):
        (gradient,) = torch.autograd.grad((level * torch.randn_like(level)).sum(), image, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_discriminator_gradients_reach_every_parameter(discriminator):
    build, smallest = discriminator
    network = widely_drawn(build(norm="none")).double()
    logits = network(*(image.double() for image in pair(2 * smallest, batch=2))).logits
    (logits * torch.randn_like(logits)).sum().backward()
    assert [name for name, weight in network.named_parameters() if not weight.grad.any()] == []


def test_discriminator_can_be_trained_with_gradient_penalty(discriminator):
    build, smallest = discriminator
    network = widely_drawn(build(norm="instance"))
    source, image = pair(2 * smallest)
    logits = network(source, image.requires_grad_(True)).logits
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    (gradient.norm() - 1).square().backward()
    first = next(network.parameters())
    assert first.grad.isfinite().all()
    assert first.grad.any()


def test_spectral_norm_parametrizes_every_kernel_or_none(discriminator):
    build, _ = discriminator
    for spectral_norm in (True, False):
        kernels = [
            one for one in build(spectral_norm=spectral_norm).modules() if isinstance(one, nn.Conv2d | nn.Linear)
        ]
        assert len(kernels) >= 3
        assert all(parametrize.is_parametrized(kernel, "weight") is spectral_norm for kernel in kernels)


def test_discriminator_in_evaluation_is_deterministic(discriminator):
    build, smallest = discriminator
    network = build(spectral_norm=True).eval()
    source, image = pair(smallest)
    with torch.no_grad():
        assert torch.equal(network(source, image).logits, network(source, image).logits)


def test_discriminator_weights_are_float32_and_not_shared(discriminator):
    build, _ = discriminator
    weights = list(build().parameters())
    assert all(weight.dtype == torch.float32 for weight in weights)
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)


def test_discriminator_refuses_image_below_least_size(discriminator):
    build, smallest = discriminator
    network, less = build(), smallest - 1
    for rows, columns in ((less, 2 * smallest), (2 * smallest, less)):
        with pytest.raises(ValueError, check=refusal("E-NETWORK-12", least=smallest, rows=rows, columns=columns)):
            network(torch.zeros(1, 1, rows, columns), torch.zeros(1, 1, rows, columns))


def test_discriminator_refuses_unknown_sees(discriminator):
    build, _ = discriminator
    with pytest.raises(ValueError, check=refusal("E-NETWORK-11", sees="source")):
        build(sees="source")
