import pytest
import torch

from medgan.training.image_pool import Pool

pytestmark = pytest.mark.unit


def batch(*numbers):
    """Returns a batch (source, output): the pixels of each source hold its number, those of the output minus it."""
    source = torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return source, -source


def numbers(images):
    return [int(value) for value in images[:, 0, 0, 0].abs()]


def test_pool_of_size_zero_returns_same_batch_and_keeps_nothing():
    pool, (source, output) = Pool(0), batch(1, 2)
    assert all(one is other for one, other in zip(pool.exchange(source, output), (source, output), strict=True))
    assert pool.kept == []


def test_pool_returns_new_pairs_until_full():
    pool = Pool(4)
    for pair in (batch(1, 2), batch(3, 4)):
        source, output = pool.exchange(*pair)
        assert torch.equal(source, pair[0])
        assert torch.equal(output, pair[1])
    assert [int(source[0, 0, 0]) for source, _ in pool.kept] == [1, 2, 3, 4]


def test_pool_accepts_batch_larger_than_free_places():
    pool = Pool(3)
    pool.exchange(*batch(1, 2))
    source, _ = pool.exchange(*batch(3, 4))
    assert numbers(source)[0] == 3
    assert len(pool.kept) == 3


def test_full_pool_exchanges_new_pair_for_older_pair_half_of_time():
    torch.manual_seed(0)
    pool = Pool(5)
    pool.exchange(*batch(0, 1, 2, 3, 4))
    older = 0
    for number in range(5, 1005):
        before = {int(source[0, 0, 0]) for source, _ in pool.kept}
        (given,) = numbers(pool.exchange(*batch(number))[0])
        after = {int(source[0, 0, 0]) for source, _ in pool.kept}
        assert len(pool.kept) == 5
        if given == number:
            assert after == before
        else:
            older += 1
            assert given in before
            assert after == before - {given} | {number}
    assert 440 < older < 560  # four standard deviations about a half


def test_full_pool_exchanges_every_place():
    torch.manual_seed(0)
    pool = Pool(5)
    pool.exchange(*batch(*range(5)))
    for number in range(5, 105):
        pool.exchange(*batch(number))
    assert min(int(source[0, 0, 0]) for source, _ in pool.kept) >= 5


def test_pool_keeps_output_with_own_source():
    torch.manual_seed(0)
    pool = Pool(3)
    for start in range(1, 60, 2):
        source, output = pool.exchange(*batch(start, start + 1))
        assert torch.equal(output, -source)
        assert all(torch.equal(kept, -own) for own, kept in pool.kept)


def test_pool_does_not_keep_memory_of_whole_batch():
    pool = Pool(2)
    for _ in range(9):
        pool.exchange(torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8))
    assert {one.untyped_storage().nbytes() for pair in pool.kept for one in pair} == {4 * 8 * 8}
