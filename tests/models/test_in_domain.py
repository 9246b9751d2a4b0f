import pytest
import torch
from refusal import refusal

from medgan.models.in_domain import NOISE, NUM_SQUARES, SHARE, Autoencoder, Encoder, corrupted


def smooth(count, side=32):
    """Discs of many sizes and levels, in [-1, 1]."""
    generator = torch.Generator().manual_seed(5)
    middle, radius, level = (torch.rand(count, 1, 1, 1, generator=generator) for _ in range(3))
    axis = torch.linspace(-1, 1, side)
    distance = ((axis.view(-1, 1) - middle + 0.5) ** 2 + axis.view(1, -1) ** 2).sqrt()
    return torch.sigmoid((0.3 + 0.5 * radius - distance) * 15) * (0.5 + level) - 1


def test_encoder_stage_halves_image_and_doubles_width():
    features = Encoder(4, base_channels=6)(torch.zeros(2, 1, 48, 32))
    assert [tuple(one.shape) for one in features] == [(2, 6, 24, 16), (2, 12, 12, 8), (2, 24, 6, 4), (2, 48, 3, 2)]


@pytest.mark.parametrize("base_channels", [1, 2, 3, 5, 32])
def test_encoder_accepts_any_width_and_single_pixel(base_channels):
    features = Encoder(4, base_channels)(torch.rand(1, 1, 1, 1))
    assert all(one.isfinite().all() for one in features)


def test_encoder_blocks_respond_to_shift_of_intensity():
    """Otherwise a content loss could not detect an error in HU; normalization of single channels removes the shift."""
    torch.manual_seed(0)
    encoder, images = Encoder(4, 16), smooth(4, 128)
    for block, shifted in zip(encoder(images), encoder(images + 0.2), strict=True):
        edge = block.shape[-1] // 4
        inner, moved = block[..., edge:-edge, edge:-edge], shifted[..., edge:-edge, edge:-edge]
        assert (inner - moved).abs().mean() > 0.02 * inner.abs().mean()


def test_autoencoder_in_evaluation_decodes_last_stage_of_clean_image():
    network, images = Autoencoder(4).eval(), smooth(2)
    assert torch.equal(network(images), network(images))
    assert torch.equal(network(images), network.decoder(network.encoder(images)[-1]))
    assert network(images).shape == images.shape and network(images).abs().max() <= 1


def test_autoencoder_in_training_corrupts_image_anew_each_time():
    network, images = Autoencoder(4), smooth(2)
    assert not torch.equal(network(images), network(images))
    torch.manual_seed(3)
    first = network(images)
    torch.manual_seed(3)
    assert torch.equal(first, network(images))


def test_corrupted_adds_noise_and_black_squares_to_each_image():
    torch.manual_seed(0)
    clean = torch.full((200, 1, 48, 60), 0.5)
    spoiled = corrupted(clean)
    blank, side = spoiled == -1, 48 // SHARE
    assert clean.eq(0.5).all(), "the clean image is the target: it must stay"
    counts = blank.sum(dim=(1, 2, 3))
    assert counts.min() >= side**2 and counts.max() == NUM_SQUARES * side**2, "they may overlap"
    assert len({tuple(one.flatten().tolist()) for one in blank}) == 200
    noise = (spoiled - clean)[~blank]
    small = corrupted(torch.zeros(200, 1, 12, 12)) == -1
    assert small.any(dim=0).all(), "every pixel is reached, corners too"
    assert abs(noise.mean()) < 0.002 and noise.std() == pytest.approx(NOISE, rel=0.01)


def test_corrupted_square_has_equal_sides(monkeypatch):
    monkeypatch.setattr("medgan.models.in_domain.NUM_SQUARES", 1)
    for blank in corrupted(torch.zeros(20, 1, 36, 30))[:, 0] == -1:
        rows, columns = blank.any(dim=1).nonzero().flatten(), blank.any(dim=0).nonzero().flatten()
        assert len(rows) == len(columns) == 5 and blank.sum() == 25
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == 4


def test_autoencoder_learns_to_restore_clean_image():
    torch.manual_seed(0)
    network, images = Autoencoder(8), smooth(8)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    with torch.no_grad():
        before = (network.eval()(images) - images).abs().mean()
    for _ in range(60):
        loss = (network.train()(images) - images).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.encoder.parameters())
    with torch.no_grad():
        assert (network.eval()(images) - images).abs().mean() < 0.25 * before


def test_autoencoder_refuses_sides_that_16_does_not_divide():
    assert Autoencoder(2).divisor == 16
    with pytest.raises(ValueError, check=refusal("E-NETWORK-09", divisor="16", rows="32", columns="24")):
        Autoencoder(2)(torch.zeros(1, 1, 32, 24))
