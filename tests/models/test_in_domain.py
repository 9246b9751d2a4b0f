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


def test_each_stage_halves_the_image_and_doubles_the_width():
    features = Encoder(4, base_channels=6)(torch.zeros(2, 1, 48, 32))
    assert [tuple(one.shape) for one in features] == [(2, 6, 24, 16), (2, 12, 12, 8), (2, 24, 6, 4), (2, 48, 3, 2)]


@pytest.mark.parametrize("base_channels", [1, 2, 3, 5, 32])
def test_any_width_and_a_single_pixel_work(base_channels):
    features = Encoder(4, base_channels)(torch.rand(1, 1, 1, 1))
    assert all(one.isfinite().all() for one in features)


def test_every_block_sees_a_shift_of_intensity_away_from_the_border():
    """A content loss that does not is blind to an error in HU; normalizing single channels would make it so."""
    torch.manual_seed(0)
    encoder, images = Encoder(4, 16), smooth(4, 128)
    for block, shifted in zip(encoder(images), encoder(images + 0.2), strict=True):
        edge = block.shape[-1] // 4
        inner, moved = block[..., edge:-edge, edge:-edge], shifted[..., edge:-edge, edge:-edge]
        assert (inner - moved).abs().mean() > 0.02 * inner.abs().mean()


def test_in_evaluation_the_clean_image_goes_through_the_last_stage_and_nothing_beside_it():
    network, images = Autoencoder(4).eval(), smooth(2)
    assert torch.equal(network(images), network(images))
    assert torch.equal(network(images), network.decoder(network.encoder(images)[-1]))
    assert network(images).shape == images.shape and network(images).abs().max() <= 1


def test_in_training_it_is_given_another_corruption_each_time():
    network, images = Autoencoder(4), smooth(2)
    assert not torch.equal(network(images), network(images))
    torch.manual_seed(3)
    first = network(images)
    torch.manual_seed(3)
    assert torch.equal(first, network(images))


def test_the_corruption_is_noise_and_squares_of_minus_one_each_image_its_own():
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


def test_one_square_is_a_square(monkeypatch):
    monkeypatch.setattr("medgan.models.in_domain.NUM_SQUARES", 1)
    for blank in corrupted(torch.zeros(20, 1, 36, 30))[:, 0] == -1:
        rows, columns = blank.any(dim=1).nonzero().flatten(), blank.any(dim=0).nonzero().flatten()
        assert len(rows) == len(columns) == 5 and blank.sum() == 25
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == 4


def test_trained_to_give_the_clean_image_back_it_learns_to():
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


def test_sides_that_do_not_halve_four_times_are_refused():
    assert Autoencoder(2).divisor == 16
    with pytest.raises(ValueError, check=refusal("E-NETWORK-09", divisor="16", rows="32", columns="24")):
        Autoencoder(2)(torch.zeros(1, 1, 32, 24))
