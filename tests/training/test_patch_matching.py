import numpy as np
import pytest
import torch
from refusal import refusal
from torch.nn.functional import interpolate

from medgan.errors import InputError
from medgan.metrics.validation_metrics import SliceMetrics
from medgan.training import patch_matching as knn
from medgan.training.patch_matching import PatchMatching, knn_image_predictor, measure_knn_on_test, patches_of

pytestmark = pytest.mark.unit


class Pairs(list):
    """Replaces `data.dataset.Slices`: (source, target) by number."""

    def __init__(self, sources, targets):
        super().__init__(zip(sources, targets, strict=True))


def drawn(count, *, seed=0, coarse=None, sides=(20, 24)):
    """Images (count, 1, *sides) in [-1, 1]: noise, or smooth from `coarse` x `coarse` numbers."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, *((coarse, coarse) if coarse else sides), generator=draw) * 2 - 1
    return interpolate(images, size=sides, mode="bilinear") if coarse else images


def test_patches_of_surround_each_pixel_with_repeated_border():
    image = np.arange(12.0).reshape(3, 4)
    patches = patches_of(image, 3).reshape(3, 4, 3, 3)
    assert patches[1, 2].tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]
    assert patches[0, 0].tolist() == [[0, 0, 1], [0, 0, 1], [4, 4, 5]]
    assert np.array_equal(patches[..., 1, 1], image)
    assert np.array_equal(patches_of(image, 1)[:, 0], image.reshape(-1))


@pytest.mark.parametrize(("patch", "neighbors"), [(3, 1), (3, 5), (1, 3)])
def test_predictor_equals_mean_target_of_nearest_patches_by_brute_force(patch, neighbors, monkeypatch):
    monkeypatch.setattr(knn, "SLACK", 0.0)  # nine components hold all of a patch of nine pixels
    sources, targets, new = drawn(3), drawn(3, seed=1), drawn(2, seed=2)
    predictor = knn_image_predictor(Pairs(sources, targets), patch=patch, neighbors=neighbors, seed=0)
    references = torch.from_numpy(np.concatenate([patches_of(one[0].numpy(), patch) for one in sources])).double()
    queries = torch.from_numpy(np.concatenate([patches_of(one[0].numpy(), patch) for one in new])).double()
    nearest = torch.cdist(queries, references).topk(neighbors, largest=False).indices
    expected = targets.reshape(-1)[nearest].mean(dim=1).reshape(new.shape)
    torch.testing.assert_close(predictor(new), expected)


def test_predictor_returns_targets_of_training_images():
    sources, targets = drawn(2), drawn(2, seed=1)
    predictor = knn_image_predictor(Pairs(sources, targets), neighbors=1, seed=0)
    torch.testing.assert_close(predictor(sources), targets)


def test_predictor_learns_contrast_that_depends_on_neighborhood():
    """The target is the slope of the source, which a single pixel does not determine."""

    def slope(images):
        return torch.gradient(images, dim=3)[0] * 3

    sources, new = drawn(40, coarse=5), drawn(4, coarse=5, seed=9)
    alone, around = (
        (knn_image_predictor(Pairs(sources, slope(sources)), patch=patch, seed=0)(new) - slope(new)).abs().mean()
        for patch in (1, 7)
    )
    assert around < 0.3 * slope(new).abs().mean() < alone


def test_equal_patches_are_merged_with_mean_of_targets():
    flat = torch.full((3, 1, 8, 8), -1.0)
    targets = torch.stack([torch.full((1, 8, 8), value) for value in (0.1, 0.2, 0.6)])
    predictor = knn_image_predictor(Pairs(flat, targets), seed=0)
    assert len(predictor.values) == 1, "with fewer patches than neighbors, all patches count"
    torch.testing.assert_close(predictor(flat), torch.full_like(flat, 0.3))


def test_predictor_takes_same_number_of_patches_from_every_slice():
    sources = (
        torch.stack([torch.full((1, 16, 16), float(number)) for number in range(5)]) + drawn(5, sides=(16, 16)) / 4
    )
    for max_patches, expected in ((5, 1), (64, 12), (10_000, 256)):
        predictor = knn_image_predictor(Pairs(sources, sources), patch=1, max_patches=max_patches, seed=0)
        middles = predictor.values.round()
        assert [int((middles == number).sum()) for number in range(5)] == [expected] * 5


def test_predictor_depends_only_on_seed():
    pairs, new = Pairs(drawn(3), drawn(3, seed=1)), drawn(1, seed=2)
    outputs = [knn_image_predictor(pairs, max_patches=90, seed=seed)(new) for seed in (4, 4, 5)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_predictor_translates_images_one_by_one_and_keeps_type():
    predictor = knn_image_predictor(Pairs(drawn(3), drawn(3, seed=1)), seed=0)
    batch = drawn(3, seed=7, sides=(9, 30))
    assert predictor(batch).shape == batch.shape
    assert predictor(batch).dtype == torch.float32
    assert torch.equal(predictor(batch), torch.cat([predictor(one[None]) for one in batch]))
    assert predictor(batch.double()).dtype == torch.float64
    assert predictor(batch).abs().max() <= 1


def test_predictor_compares_patches_by_principal_components():
    along, across = torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20)[:, None]
    waves = torch.stack([torch.sin(k * along + across)[None] for k in range(2, 8)])
    predictor = knn_image_predictor(Pairs(waves, waves), seed=0)
    centered = np.concatenate([patches_of(one[0].numpy(), 7) for one in waves]) - predictor.middle
    kept = (centered @ predictor.components) @ predictor.components.T
    assert predictor.components.shape == (49, 16)
    assert np.square(centered - kept).sum() < 1e-3 * np.square(centered).sum()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"patch": 6}, refusal("E-MATCHING-01", patch=6)),
        ({"patch": -1}, refusal("E-MATCHING-01", patch=-1)),
        ({"neighbors": 0}, refusal("E-MATCHING-02", neighbors=0)),
        ({"max_patches": 2}, refusal("E-MATCHING-03", num_train=3, max_patches=2)),
    ],
)
def test_predictor_refuses_setting_out_of_range(settings, expected):
    with pytest.raises(InputError, check=expected):
        knn_image_predictor(Pairs(drawn(3), drawn(3)), seed=0, **settings)


def test_measure_knn_on_test_learns_from_train_and_measures_test_patients(monkeypatch):
    roles = {"train": Pairs(drawn(2), drawn(2, seed=1)), "test": Pairs(drawn(1, seed=2), drawn(1, seed=3))}

    class Prepared:
        def slices(self, role):
            return roles[role]

    def evaluate(generator, slices, runtime, *, perceptual):
        assert isinstance(generator, PatchMatching)
        assert slices is roles["test"] and runtime.device == torch.device("cpu")
        torch.testing.assert_close(generator(drawn(2)), knn_image_predictor(roles["train"], seed=3)(drawn(2)))
        return [
            SliceMetrics("a", 0, {"ssim": 0.5}),
            SliceMetrics("a", 1, {"ssim": 0.7}),
            SliceMetrics("b", 0, {"ssim": 0.1 if perceptual else 1}),
        ]

    monkeypatch.setattr(knn, "evaluate", evaluate)
    measured = measure_knn_on_test(Prepared(), seed=3, perceptual=lambda output, target: output)
    assert measured == {"a": {"ssim": pytest.approx(0.6)}, "b": {"ssim": 0.1}}
