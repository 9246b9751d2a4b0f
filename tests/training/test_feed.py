import itertools

import pytest
import torch

from medgan.data.dataset import Batches
from medgan.training.feed import Feed, bytes_of, stacked, stored_on

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


def unchanged(source, target):
    return source, target


def test_feed_from_device_memory_equals_feed_from_disk(make_slices):
    slices = make_slices(7)
    sampler = Batches(7, 2, seed=3)
    read = Feed(slices, sampler, device=CPU, augment=unchanged)
    kept = Feed(slices, sampler, device=CPU, augment=unchanged, stored=stacked(slices, CPU))
    for one, other in itertools.islice(zip(read, kept, strict=True), 9):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_feed_augments_every_batch_and_counts_waiting_time(make_slices):
    slices = make_slices(4)
    feed = Feed(slices, Batches(4, 2, seed=0), device=CPU, augment=lambda source, target: (-source, target + 1))
    plain = Feed(slices, Batches(4, 2, seed=0), device=CPU, augment=unchanged)
    (source, target), (before, wanted) = next(feed), next(plain)
    assert torch.equal(source, -before)
    assert torch.equal(target, wanted + 1)
    first = feed.waited_s
    assert first > 0
    next(feed)
    assert feed.waited_s > first


def test_stored_on_cpu_is_none_and_bytes_of_counts_both_images(make_slices):
    assert stored_on(CPU, make_slices(3)) is None
    assert bytes_of(make_slices(3)) == 3 * 2 * 16 * 16 * 4
