import pytest
import torch

from medgan.data.augmentation import AUGMENTATIONS, flip, flip_shift

pytestmark = pytest.mark.unit


def pairs(number=64, size=32):
    draw = torch.Generator().manual_seed(0)
    source = torch.rand(number, 1, size, size, generator=draw) * 2 - 1
    return source, -source


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmentation_treats_source_and_target_alike_and_keeps_shape(name):
    torch.manual_seed(1)
    source, target = pairs()
    given, wanted = AUGMENTATIONS[name](source, target)
    assert given.shape == source.shape
    inside = (given > -1) & (wanted > -1)
    assert torch.equal(given[inside], -wanted[inside])


def test_flip_mirrors_about_half_of_pairs_and_keeps_rest():
    torch.manual_seed(1)
    source, target = pairs()
    given, _ = flip(source, target)
    same = (given == source).flatten(1).all(dim=1)
    mirrored = (given == source.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 16 < int(same.sum()) < 48


def test_flip_shift_moves_at_most_sixteenth_of_side_and_fills_with_air():
    torch.manual_seed(1)
    image = torch.full((200, 1, 32, 32), -1.0)
    image[:, :, 16, 16] = 1.0
    given, wanted = flip_shift(image, image)
    assert torch.equal(given, wanted)
    places = (given > 0).nonzero()[:, 2:]
    assert len(places) == 200
    assert places[:, 0].min() == 14
    assert places[:, 0].max() == 18
    assert set(given.unique().tolist()) == {-1.0, 1.0}


def test_flip_shift_with_same_random_state_gives_same_images():
    sources = []
    for _ in range(2):
        torch.manual_seed(5)
        sources.append(flip_shift(*pairs())[0])
    assert torch.equal(*sources)
