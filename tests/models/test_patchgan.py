import pytest
import torch
from refusal import refusal
from torch import nn
from torch.nn import functional

from medgan.models.patchgan import PatchDiscriminator

pytestmark = pytest.mark.unit


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("patch", [1, 16, 34, 70, 142, 286])
def test_patch_discriminator_logit_depends_on_patch_of_exact_size(patch):
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=patch, base_channels=2, norm="none").double()
    side = patch + 66
    source, image = (torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True) for _ in range(2))
    logits = network(source, image).logits
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    for gradient in (source.grad, image.grad):
        rows = gradient[0, 0].any(dim=1).nonzero().flatten()
        columns = gradient[0, 0].any(dim=0).nonzero().flatten()
        assert len(rows) == len(columns) == patch
        assert 0 < rows[0] <= rows[-1] < side - 1, "a patch that touches the border would be cut off"


def field(strides, kernel=4):
    """Receptive field of a chain of convolutions, from the last to the first."""
    pixels = 1
    for stride in reversed(strides):
        pixels = (pixels - 1) * stride + kernel
    return pixels


def test_patch_discriminator_strides_give_receptive_field_of_patch():
    """Public re-implementations leave out a layer of stride 1 (10 pixels), or give it stride 2 (94 pixels)."""
    assert field([2, 1]) == 10
    assert field([2, 2, 2, 2, 1]) == 94
    for patch, strides in ((16, [2, 1, 1]), (70, [2, 2, 2, 1, 1])):
        network = PatchDiscriminator(patch=patch, base_channels=2)
        assert [part.stride[0] for part in network.modules() if isinstance(part, nn.Conv2d)] == strides
        assert field(strides) == patch


def independent_forward(weights, source, image):
    """The 70 x 70 discriminator by matrix products over unfolded patches, instance norm by its definition."""

    def convolved(hidden, name, stride):
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        columns = functional.unfold(hidden, 4, padding=1, stride=stride)
        rows = (hidden.shape[-2] + 2 - 4) // stride + 1
        return (kernel.flatten(1) @ columns + bias[:, None]).unflatten(2, (rows, -1))

    hidden = convolved(torch.cat([source, image], dim=1), "hidden.0.0", 2)
    levels = [torch.maximum(hidden, 0.2 * hidden)]
    for number, stride in ((1, 2), (2, 2), (3, 1)):
        hidden = convolved(levels[-1], f"hidden.{number}.0", stride)
        variance, mean = torch.var_mean(hidden, (2, 3), correction=0, keepdim=True)
        scale, shift = (weights[f"hidden.{number}.1.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        hidden = scale * (hidden - mean) / (variance + 1e-5).sqrt() + shift
        levels.append(torch.maximum(hidden, 0.2 * hidden))
    return convolved(levels[-1], "last", 1), levels


@pytest.mark.parametrize(("patch", "count"), [(16, 135_617), (70, 2_765_505)])
def test_patch_discriminator_has_parameter_count_of_paper(patch, count):
    with torch.device("meta"):
        assert parameters(PatchDiscriminator(patch=patch, norm="batch")) == count
        assert parameters(PatchDiscriminator(patch=patch, norm="instance")) == count


def test_patch_discriminator_of_70_pixels_equals_matrix_products():
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=70, base_channels=3, source_channels=2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    source, image = torch.randn(2, 2, 80, 96), torch.randn(2, 1, 80, 96)
    logits, features = independent_forward(network.state_dict(), source, image)
    output = network(source, image)
    torch.testing.assert_close(output.logits, logits, rtol=1e-5, atol=1e-5)
    for one, other in zip(output.features, features, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_patch_discriminator_of_one_pixel_equals_pix2pix():
    network = PatchDiscriminator(patch=1)
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [(layer.kernel_size, layer.out_channels) for layer in layers] == [((1, 1), 64), ((1, 1), 128), ((1, 1), 1)]
    assert network(torch.zeros(1, 1, 6, 9), torch.zeros(1, 1, 6, 9)).logits.shape == (1, 1, 6, 9)


def test_patch_discriminator_of_16_pixels_has_layers_of_64_and_128():
    network = PatchDiscriminator(patch=16)
    output = network(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    assert [tuple(level.shape) for level in output.features] == [(1, 64, 16, 16), (1, 128, 15, 15)]
    assert output.logits.shape == (1, 1, 14, 14)


def test_patch_discriminator_depends_on_source():
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=16, base_channels=4, spectral_norm=True).eval()
    source, other, image = torch.randn(3, 1, 1, 32, 32).unbind()
    first, second = network(source, image), network(other, image)
    assert not torch.allclose(first.logits, second.logits)
    assert not torch.allclose(first.logits, network(image, source).logits)
    assert all(not torch.allclose(one, two) for one, two in zip(first.features, second.features, strict=True))


def test_spectral_norm_brings_every_kernel_to_singular_value_one():
    torch.manual_seed(0)
    network = PatchDiscriminator(patch=34, base_channels=4, spectral_norm=True).train()
    for _ in range(100):
        network(torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40))
    kernels = [module.weight.flatten(1) for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(kernels) == 4
    for kernel in kernels:
        assert float(torch.linalg.matrix_norm(kernel.detach(), 2)) == pytest.approx(1, rel=1e-3)


def test_patch_discriminator_features_carry_gradient_to_image():
    network = PatchDiscriminator(patch=16, base_channels=2)
    image = torch.randn(1, 1, 16, 16, requires_grad=True)
    network(torch.randn(1, 1, 16, 16), image).features[-1].square().sum().backward()
    assert image.grad.abs().sum() > 0


def test_patch_discriminator_refuses_unknown_patch():
    with pytest.raises(ValueError, check=refusal("E-NETWORK-15", layers="1, 16, 34, 70, 142, 286", patch="10")):
        PatchDiscriminator(patch=10)


def test_patch_discriminator_refuses_image_smaller_than_patch():
    network = PatchDiscriminator(patch=70, base_channels=2)
    with pytest.raises(ValueError, check=refusal("E-NETWORK-12", least="70", rows="96", columns="64")):
        network(torch.zeros(1, 1, 96, 64), torch.zeros(1, 1, 96, 64))
