import numpy as np
import pytest
from refusal import refusal
from skimage.transform import iradon, radon

from medgan.data.prepare.low_dose import FILTER, NUM_ANGLES, simulate_low_dose
from medgan.data.volume import Volume
from medgan.errors import InputError

MIDDLE = np.s_[:, 20:30, 16:32]  # well inside the activity of `volume`


@pytest.fixture(scope="module")
def volume():
    """Three slices of an even disk of 5 SUV, wider than high, with nothing around it."""
    rows, columns = np.mgrid[:50, :48]
    disk = ((rows - 25) / 18) ** 2 + ((columns - 24) / 14) ** 2 < 1
    return Volume(np.float32(5) * np.stack([disk] * 3).astype(np.float32), np.diag([4.0, 4, 4, 1]), "1.2", "SUV")


def low_dose(volume, fraction, *, counts=1e6, seed=0):
    return simulate_low_dose(
        volume, total_counts=counts, dose_fraction=fraction, random=np.random.default_rng(seed)
    ).array


def test_the_same_seed_gives_the_same_image_and_another_gives_another(volume):
    first, again, other = (low_dose(volume, 0.2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_full_dose_is_the_very_volume(volume):
    full = simulate_low_dose(volume, total_counts=1e6, dose_fraction=1, random=np.random.default_rng(0))
    assert full is volume


def test_noise_grows_as_one_over_the_fraction_less_one(volume):
    variances = [
        np.mean([np.var((low_dose(volume, fraction, seed=seed) - volume.array)[MIDDLE]) for seed in range(4)])
        for fraction in (0.1, 0.25)
    ]
    assert variances[0] / variances[1] == pytest.approx((1 / 0.1 - 1) / (1 / 0.25 - 1), rel=0.15)


def test_noise_falls_as_one_over_the_counts(volume):
    few, many = (np.var((low_dose(volume, 0.25, counts=counts) - volume.array)[MIDDLE]) for counts in (1e6, 1e7))
    assert few / many == pytest.approx(10, rel=0.3)


def test_noise_has_the_size_of_thinned_counts_reconstructed_one_by_one(volume):
    """Independent: a sinogram of these counts drawn from Poisson twice over, reconstructed whole, without thinning."""
    angles, random = np.linspace(0, 180, NUM_ANGLES, endpoint=False), np.random.default_rng(3)
    sinogram = radon(volume.array[0].astype(float), angles, circle=False)
    scale = 1e6 / sinogram.sum()
    low = random.poisson(0.1 * scale * sinogram) / (0.1 * scale)
    noise = iradon(low - sinogram, angles, output_size=50, filter_name=FILTER, circle=False)
    got = low_dose(volume, 0.1) - volume.array
    # Poisson at f has 1/f, thinning of given counts 1/f - 1
    assert got[MIDDLE].std() == pytest.approx(noise[20:30, 17:33].std() * np.sqrt(0.9), rel=0.15)


def test_the_mean_of_the_activity_is_kept_and_nothing_stays_nearly_nothing(volume):
    low = low_dose(volume, 0.25)
    assert low[MIDDLE].mean() == pytest.approx(5, rel=0.01)
    assert low[volume.array == 0].mean() < 0.02 * 5
    assert low_dose(volume, 0.25, counts=1e7).mean() == pytest.approx(volume.array.mean(), rel=0.02)
    assert low.min() >= 0


def test_counts_are_those_of_the_mean_slice_whatever_the_number_of_slices(volume):
    stack = Volume(np.concatenate([volume.array] * 3), volume.affine, "1.2", "SUV")
    one, three = (np.var((low_dose(one, 0.25) - one.array)[MIDDLE]) for one in (volume, stack))
    assert three / one == pytest.approx(1, rel=0.3)


def test_noise_lies_where_the_activity_lies_also_off_the_middle(volume):
    """Which pixel `radon` turns about shows as a shift of half a pixel or more."""
    array = np.zeros_like(volume.array[:, :, :41])
    array[:, 30:38, 8:14] = 5
    change = np.abs(low_dose(Volume(array, volume.affine, "1.2", "SUV"), 0.1, counts=1e5) - array)
    weights = change.sum(0) * (change.sum(0) > 0.5 * change.sum(0).max())
    rows, columns = np.mgrid[:50, :41]
    assert (weights * rows).sum() / weights.sum() == pytest.approx(33.5, abs=0.6)
    assert (weights * columns).sum() / weights.sum() == pytest.approx(10.5, abs=0.6)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.1, float("nan")])
def test_a_dose_fraction_outside_its_range_is_refused(volume, fraction):
    with pytest.raises(InputError, check=refusal("E-SIMULATE-01")):
        low_dose(volume, fraction)


@pytest.mark.parametrize("counts", [0, -1.0, float("inf")])
def test_counts_that_are_none_are_refused(volume, counts):
    with pytest.raises(InputError, check=refusal("E-SIMULATE-02")):
        low_dose(volume, 0.5, counts=counts)


def test_negative_voxels_hold_no_counts(volume):
    negative = volume.array.copy()
    negative[:, :3, :3] = -2
    low = low_dose(volume.with_array(negative), 0.25)
    np.testing.assert_array_equal(low[MIDDLE], low_dose(volume, 0.25)[MIDDLE])
    assert low.min() >= 0


@pytest.mark.parametrize(("value", "said"), [(0.0, "got at most 0 SUV"), (-1.0, "got at most -1 SUV")])
def test_a_volume_without_activity_is_refused(volume, value, said):
    with pytest.raises(InputError, match=f"expected a PET of some values above 0; {said}"):
        low_dose(volume.with_array(np.full_like(volume.array, value)), 0.5)
