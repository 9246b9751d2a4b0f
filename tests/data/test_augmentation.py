import pytest
import torch

from medgan.data.augmentation import AUGMENTATIONS, flip, flip_shift


def pairs(number=64, size=32):
    draw = torch.Generator().manual_seed(0)
    source = torch.rand(number, 1, size, size, generator=draw) * 2 - 1
    return source, -source


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_source_and_target_are_treated_alike_and_keep_their_shape(name):
    torch.manual_seed(1)
    source, target = pairs()
    given, wanted = AUGMENTATIONS[name](source, target)
    assert given.shape == source.shape
    inside = (given > -1) & (wanted > -1)
    assert torch.equal(given[inside], -wanted[inside])


def test_about_half_are_mirrored_and_the_others_left_as_they_are():
    torch.manual_seed(1)
    source, target = pairs()
    given, _ = flip(source, target)
    same = (given == source).flatten(1).all(dim=1)
    mirrored = (given == source.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 16 < int(same.sum()) < 48


def test_a_shift_is_at_most_a_sixteenth_of_the_side_and_leaves_air_behind():
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


def test_the_same_random_state_gives_the_same_views():
    views = []
    for _ in range(2):
        torch.manual_seed(5)
        views.append(flip_shift(*pairs()))
    assert torch.equal(views[0][0], views[1][0])
