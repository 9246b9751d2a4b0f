import pytest
import torch
from torch import nn

from medgan.models.patch import PatchDiscriminator


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("patch", [16, 34, 70, 142])
def test_a_judgement_depends_on_a_patch_of_exactly_that_size(patch):
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=patch, base_channels=2, norm="none").double()
    source, image = (torch.randn(1, 1, 192, 192, dtype=torch.float64, requires_grad=True) for _ in range(2))
    logits = network(source, image).logits
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    for gradient in (source.grad, image.grad):
        rows = gradient[0, 0].any(dim=1).nonzero().flatten()
        columns = gradient[0, 0].any(dim=0).nonzero().flatten()
        assert len(rows) == len(columns) == patch
        assert 0 < rows[0] < rows[-1] < 191, "the patch must not touch the border, or the measure is cut off"


@pytest.mark.parametrize(("patch", "count"), [(16, 135_617), (70, 2_765_505)])
def test_parameter_counts_are_the_papers(patch, count):
    with torch.device("meta"):
        assert parameters(PatchDiscriminator(patch=patch, norm="batch")) == count
        assert parameters(PatchDiscriminator(patch=patch, norm="instance")) == count


def test_sixteen_pixel_patches_see_two_hidden_layers_of_64_and_128():
    network = PatchDiscriminator(patch=16)
    output = network(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    assert [tuple(level.shape) for level in output.features] == [(1, 64, 16, 16), (1, 128, 15, 15)]
    assert output.logits.shape == (1, 1, 14, 14)


def test_the_judgement_is_conditional_on_the_source():
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=16, base_channels=4, spectral_norm=True).eval()
    source, other, image = torch.randn(3, 1, 1, 32, 32).unbind()
    here, there = network(source, image), network(other, image)
    assert not torch.allclose(here.logits, there.logits)
    assert not torch.allclose(here.logits, network(image, source).logits)
    assert all(not torch.allclose(one, two) for one, two in zip(here.features, there.features, strict=True))


def test_spectral_norm_brings_every_kernel_to_singular_value_one():
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=34, base_channels=4, spectral_norm=True).train()
    for _ in range(100):
        network(torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40))
    kernels = [module.weight.flatten(1) for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(kernels) == 4
    for kernel in kernels:
        assert float(torch.linalg.matrix_norm(kernel.detach(), 2)) == pytest.approx(1, rel=1e-3)


def test_features_carry_gradient_to_the_image():
    network = PatchDiscriminator(patch=16, base_channels=2)
    image = torch.randn(1, 1, 16, 16, requires_grad=True)
    network(torch.randn(1, 1, 16, 16), image).features[-1].square().sum().backward()
    assert image.grad.abs().sum() > 0


def test_an_unknown_patch_is_refused():
    with pytest.raises(ValueError, match="patch: expected one of 16, 34, 70, 142; got 10"):
        PatchDiscriminator(patch=10)


def test_a_patch_larger_than_the_image_is_refused():
    network = PatchDiscriminator(patch=70, base_channels=2)
    with pytest.raises(ValueError, match=r"a patch of 70 is larger than the image \(1, 1, 96, 64\)"):
        network(torch.zeros(1, 1, 96, 64), torch.zeros(1, 1, 96, 64))
