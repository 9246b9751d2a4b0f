import pytest
import torch
from torch import nn

from medgan.models.began import DIVERSITY, NUM_LEVELS, RATE, AutoencoderDiscriminator

pytestmark = pytest.mark.unit


def small(**settings):
    torch.manual_seed(0)
    return AutoencoderDiscriminator(**{"base_channels": 4} | settings)


def test_autoencoder_logits_are_negative_reconstruction_error_per_pixel():
    network = small(image_channels=2)
    nn.init.zeros_(network.last.weight)
    with torch.no_grad():
        network.last.bias.copy_(torch.tensor([0.25, -0.5]))
    image = torch.rand(3, 2, 32, 40) * 2 - 1
    logits = network(torch.zeros(3, 1, 32, 40), image).logits
    expected = ((image[:, :1] - 0.25).abs() + (image[:, 1:] + 0.5).abs()) / 2
    torch.testing.assert_close(logits, -expected)


@pytest.mark.parametrize("sides", [(32, 32), (45, 64), (256, 96)])
def test_autoencoder_keeps_image_size_for_sides_from_32(sides):
    output = small()(torch.randn(2, 1, *sides), torch.randn(2, 1, *sides))
    assert output.logits.shape == (2, 1, *sides)
    assert (output.logits <= 0).all()


def test_autoencoder_code_is_256_times_smaller_than_image():
    features = small()(torch.zeros(2, 1, 64, 96), torch.zeros(2, 1, 64, 96)).features
    assert [tuple(level.shape[1:]) for level in features] == [
        (4, 32, 48), (8, 16, 24), (16, 8, 12), (32, 4, 6), (4, 2, 3)
    ]  # fmt: skip
    assert features[-1][0].numel() * 2 ** (2 * NUM_LEVELS - 2) == 64 * 96


def test_autoencoder_decoder_mirrors_encoder():
    with torch.device("meta"):
        network = AutoencoderDiscriminator()
    assert [layer[0].in_channels for layer in network.encoder] == [2, 64, 128, 256, 512]
    assert [layer[0].in_channels for layer in (*network.decoder,)] == [64, 512, 256, 128]
    assert (network.last.in_channels, network.last.out_channels) == (64, 1)
    assert all(isinstance(layer[2], nn.ELU) for layer in (*network.encoder, *network.decoder))


def test_autoencoder_first_layer_code_and_last_layer_have_no_norm():
    network = small(norm="instance")
    normed = [isinstance(layer[1], nn.InstanceNorm2d) for layer in (*network.encoder, *network.decoder)]
    assert normed == [False, True, True, True, False, True, True, True, True]


def test_autoencoder_learns_to_reconstruct_images():
    network = small(norm="none", base_channels=8)
    draw = torch.Generator().manual_seed(1)
    images = nn.functional.interpolate(torch.rand(4, 1, 3, 3, generator=draw), size=(32, 32), mode="bilinear")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    errors = []
    for _ in range(80):
        error = -network(torch.zeros_like(images), images).logits.mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.3 * errors[0]


def test_fake_share_starts_at_zero_and_equals_values_worked_by_hand():
    network = small().double()
    assert network.fake_share == 0
    network.rebalance(torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64))
    assert float(network.fake_share) == pytest.approx(0.001 * (0.5 * 0.8 - 0.1))
    network.rebalance(torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    assert float(network.fake_share) == pytest.approx(0.001 * (0.3 - 0.1))
    assert (DIVERSITY, RATE) == (0.5, 0.001)


@pytest.mark.parametrize(("real", "fake", "ends"), [(0.0, 50.0, 0.0), (5000.0, 0.0, 1.0)])
def test_fake_share_stays_between_zero_and_one(real, fake, ends):
    network = small()
    for _ in range(3):
        network.rebalance(torch.tensor(real), torch.tensor(fake))
    assert network.fake_share == ends


def test_rebalance_leaves_its_arguments_unchanged():
    real, fake = torch.tensor(0.8), torch.tensor(0.1)
    small().rebalance(real, fake)
    assert (float(real), float(fake)) == (pytest.approx(0.8), pytest.approx(0.1))


def test_fake_share_is_saved_with_weights_but_is_no_parameter():
    network, other = small(), small()
    network.rebalance(torch.tensor(100.0), torch.tensor(0.0))
    other.load_state_dict(network.state_dict())
    assert float(other.fake_share) == float(network.fake_share) > 0
    assert "fake_share" not in dict(network.named_parameters())
