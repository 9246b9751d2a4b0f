import pytest
import torch
from torch import nn

from medgan.models.fila_sgan import FilamentDiscriminator, FilamentGenerator

pytestmark = pytest.mark.unit


@pytest.fixture
def generator():
    torch.manual_seed(0)
    network = FilamentGenerator(base_channels=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def test_filament_noise_varies_output_in_training(generator):
    source = torch.randn(1, 1, 64, 64).expand(2, -1, -1, -1)
    one, other = generator.train()(source)
    assert not torch.allclose(one, other, atol=1e-4)
    torch.manual_seed(3)
    first = generator(source)
    torch.manual_seed(3)
    assert torch.equal(first, generator(source))


def test_filament_evaluation_uses_zero_noise_and_draws_nothing(generator):
    source = torch.randn(1, 1, 64, 128)
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    output = generator.eval()(source)
    assert torch.equal(torch.rand(2), drawn), "the random state is as before"
    with torch.no_grad():
        generator.noise[0].weight.fill_(7.0)
    assert torch.equal(generator(source), output), "zeros, whatever they are multiplied with"


def test_filament_noise_is_constant_over_bottleneck(generator):
    entering = []
    generator.decoder[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    generator.train()(torch.randn(2, 1, 128, 192))
    (hidden,) = entering
    assert hidden.shape == (2, 32 + 4, 2, 3)
    noise = hidden[:, 32:]
    assert torch.equal(noise, noise[:, :, :1, :1].expand_as(noise))
    assert not torch.equal(noise[0], noise[1])


def test_filament_encoder_reduces_64_pixels_to_one_in_six_levels():
    network = FilamentGenerator(base_channels=2)
    shapes = []
    for layer in network.encoder:
        layer.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 1, 64, 64))
    assert shapes == [(2, 32, 32), (4, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2), (16, 1, 1)]


def test_filament_widths_end_at_512_and_noise_has_400_values():
    with torch.device("meta"):
        network = FilamentGenerator()
    assert [layer[0].out_channels for layer in network.encoder] == [64, 128, 256, 512, 512, 512]
    entering = [layer[0].in_channels for layer in network.decoder] + [network.last[0].in_channels]
    assert entering == [512 + 64, 1024, 1024, 512, 256, 128]
    assert network.noise[0].in_features == 400


@pytest.mark.parametrize("side", [32, 45, 256])
def test_filament_discriminator_gives_one_logit_per_image(side):
    network = FilamentDiscriminator(base_channels=2)
    output = network(torch.randn(3, 1, side, side), torch.randn(3, 1, side, side))
    assert output.logits.shape == (3, 1, 1, 1)
    assert [level.shape[1] for level in output.features] == [2, 8, 8, 8, 8]
    assert [level.shape[-1] for level in output.features] == [side // 2**level for level in range(1, 6)]


def test_filament_discriminator_last_layer_uses_whole_map_at_256():
    torch.manual_seed(0)
    network = FilamentDiscriminator(base_channels=2)
    output = network(torch.randn(1, 1, 256, 256), torch.randn(1, 1, 256, 256))
    expected = (network.last.weight * output.features[-1].flatten()).sum() + network.last.bias
    torch.testing.assert_close(output.logits.flatten(), expected)
