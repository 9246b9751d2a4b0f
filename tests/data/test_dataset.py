import itertools
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from refusal import refusal

from medgan.data.dataset import Batches, PreparedDataset, Unpaired, mean_target
from medgan.data.intensity import from_network
from medgan.errors import InputError

pytestmark = pytest.mark.unit


def first(batches, num):
    return list(itertools.islice(batches, num))


def test_slices_are_pairs_in_network_range(prepared):
    slices = prepared.slices("train")
    source, target = slices[0]
    assert source.shape == target.shape == (1, 32, 32)
    assert source.dtype == target.dtype == torch.float32
    stacked = torch.stack([torch.stack(slices[index]) for index in range(len(slices))])
    assert stacked.min() == -1
    assert stacked.max() <= 1
    assert len(slices.patients) == len(slices.slice_numbers) == len(slices)
    assert slices.target_window == (-1000, 2000)


def test_slices_target_equals_network_target_in_physical_unit(prepared):
    slices = prepared.slices("test")
    _, target = slices[1]
    np.testing.assert_allclose(from_network(target[0].numpy(), slices.target_window), slices.target(1), atol=0.1)


def test_slices_mask_covers_body_of_target(prepared):
    slices = prepared.slices("validation")
    mask = slices.mask(0)
    assert mask.dtype == torch.bool
    assert mask.shape == (1, 32, 32)
    target = slices.target(0)
    assert target[mask[0]].mean() > -300
    assert target[~mask[0]].mean() < -800


def test_roles_share_no_patient(prepared):
    patients = [set(prepared.slices(role).patients) for role in ("train", "validation", "test")]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 6


def test_slices_with_target_as_input_return_target_twice(prepared):
    slices, usual = prepared.slices("train", given="target"), prepared.slices("train")
    given, target = slices[3]
    assert torch.equal(given, target)
    assert torch.equal(target, usual[3][1])


def test_unpaired_keeps_every_source_and_target_in_other_order(prepared):
    slices = prepared.slices("train")
    unpaired = Unpaired(slices, seed=1)
    assert len(unpaired) == len(slices)
    assert all(torch.equal(unpaired[index][0], slices[index][0]) for index in range(len(slices)))
    assert sorted(unpaired.order) == list(range(len(slices)))
    assert (unpaired.order != np.arange(len(slices))).mean() > 0.5
    assert torch.equal(unpaired[2][1], slices[int(unpaired.order[2])][1])
    assert (Unpaired(slices, seed=1).order == unpaired.order).all()
    assert (Unpaired(slices, seed=2).order != unpaired.order).any()


def test_pickle_of_slices_is_small_and_reads_same_values(prepared):
    slices = prepared.slices("train")
    expected = slices[2]
    packed = pickle.dumps(slices)
    assert len(packed) < 20_000
    for one, other in zip(expected, pickle.loads(packed)[2], strict=True):
        assert torch.equal(one, other)


def test_mean_target_is_mean_of_clipped_targets(prepared):
    slices = prepared.slices("train")
    expected = np.mean([slices.target(index).clip(-1000, 2000) for index in range(len(slices))], axis=0)
    mean = mean_target(slices)
    assert mean.dtype == torch.float32
    np.testing.assert_allclose(from_network(mean.numpy(), (-1000, 2000)), expected, atol=1e-2)


def test_prepared_dataset_refuses_folder_without_manifest(tmp_path):
    with pytest.raises(InputError, check=refusal("E-DATASET-04", path_name="dataset.json")):
        PreparedDataset.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", refusal("E-DATASET-06")),
        ("[]", refusal("E-DATASET-06")),
        ('{"schema_version": 2}', refusal("E-DATASET-06")),
        ('{"schema_version": 99}', refusal("E-DATASET-05", schema_version="2", version="99")),
    ],
)
def test_prepared_dataset_refuses_damaged_or_foreign_manifest(tmp_path, content, expected):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, check=expected):
        PreparedDataset.open(tmp_path)


def test_prepared_dataset_reads_same_values_after_move(prepared, tmp_path):
    moved = PreparedDataset.open(shutil.copytree(prepared.folder, tmp_path / "moved"))
    assert moved.digest == prepared.digest
    assert torch.equal(moved.slices("train")[0][0], prepared.slices("train")[0][0])
    assert str(prepared.folder) not in json.dumps(moved.manifest.model_dump(mode="json"))


def test_prepared_dataset_refuses_role_without_patients(prepared):
    expected = refusal("E-DATASET-01", role="training", counts="3 train, 1 validation, 2 test")
    with pytest.raises(InputError, check=expected):
        prepared.slices("training")


def test_batches_show_every_slice_once_per_epoch_in_new_order():
    batches = Batches(12, 4, seed=1)
    assert batches.batches_per_epoch == 3
    drawn = first(batches, 6)
    one, two = [sum(part, []) for part in (drawn[:3], drawn[3:])]
    assert sorted(one) == sorted(two) == list(range(12))
    assert one != two


def test_batches_drop_incomplete_tail_of_epoch():
    assert Batches(11, 4, seed=0).batches_per_epoch == 2


@pytest.mark.parametrize("start", [0, 2, 3, 7])
def test_batches_continue_from_start_number(start):
    assert first(Batches(11, 3, seed=5, start=start), 5) == first(Batches(11, 3, seed=5), start + 5)[start:]


def test_batches_of_ranks_split_same_global_batches():
    whole = first(Batches(10, 4, seed=3), 5)
    ranks = [first(Batches(10, 4, seed=3, rank=rank, size=2), 5) for rank in (0, 1)]
    for together, *parts in zip(whole, *ranks, strict=True):
        assert [len(part) for part in parts] == [2, 2]
        assert together[0::2] == parts[0]
        assert together[1::2] == parts[1]


def test_data_loader_accepts_batches_as_sampler(prepared):
    slices = prepared.slices("train")
    loader = torch.utils.data.DataLoader(slices, batch_sampler=Batches(len(slices), 2, seed=0))
    source, target = next(iter(loader))
    assert source.shape == target.shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("batch_size", "size", "expected"),
    [(3, 2, refusal("E-DATASET-02", size="2", batch_size="3")),
     (0, 1, refusal("E-DATASET-02", size="1", batch_size="0")),
     (12, 1, refusal("E-DATASET-03", num_slices="10", batch_size="12"))],
)  # fmt: skip
def test_batches_refuse_impossible_batch_size(batch_size, size, expected):
    with pytest.raises(InputError, check=expected):
        Batches(10, batch_size, seed=0, size=size)


def test_spread_takes_slices_evenly_over_set(prepared):
    whole = prepared.slices("train")
    few = whole.spread(3)
    assert len(few) == 3 and len(whole.spread(10_000)) == len(whole)
    places = [len(whole) * (2 * number + 1) // 6 for number in range(3)]
    for mine, place in enumerate(places):
        assert all(torch.equal(*pair) for pair in zip(few[mine], whole[place], strict=True))
        assert torch.equal(few.mask(mine), whole.mask(place))
        assert (few.patients[mine], few.slice_numbers[mine]) == (whole.patients[place], whole.slice_numbers[place])
