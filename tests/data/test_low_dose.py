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
    """Three slices of a uniform ellipse of 5 SUV, taller than wide, with nothing around it."""
    rows, columns = np.mgrid[:50, :48]
    disk = ((rows - 25) / 18) ** 2 + ((columns - 24) / 14) ** 2 < 1
    return Volume(np.float32(5) * np.stack([disk] * 3).astype(np.float32), np.diag([4.0, 4, 4, 1]), "1.2", "SUV")


def low_dose(volume, fraction, *, counts=1e6, seed=0):
    return simulate_low_dose(
        volume, total_counts=counts, dose_fraction=fraction, random=np.random.default_rng(seed)
    ).array


def test_simulate_low_dose_with_same_seed_gives_same_image(volume):
    first, again, other = (low_dose(volume, 0.2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_simulate_low_dose_at_full_dose_returns_given_volume(volume):
    full = simulate_low_dose(volume, total_counts=1e6, dose_fraction=1, random=np.random.default_rng(0))
    assert full is volume


def test_low_dose_noise_variance_grows_as_inverse_fraction_minus_one(volume):
    variances = [
        np.mean([np.var((low_dose(volume, fraction, seed=seed) - volume.array)[MIDDLE]) for seed in range(4)])
        for fraction in (0.1, 0.25)
    ]
    assert variances[0] / variances[1] == pytest.approx((1 / 0.1 - 1) / (1 / 0.25 - 1), rel=0.15)


def test_low_dose_noise_variance_falls_as_inverse_of_counts(volume):
    few, many = (np.var((low_dose(volume, 0.25, counts=counts) - volume.array)[MIDDLE]) for counts in (1e6, 1e7))
    assert few / many == pytest.approx(10, rel=0.3)


def test_low_dose_noise_equals_noise_of_poisson_sinogram(volume):
    """Reference: a sinogram with Poisson noise at these counts, reconstructed whole, without thinning."""
    angles, random = np.linspace(0, 180, NUM_ANGLES, endpoint=False), np.random.default_rng(3)
    sinogram = radon(volume.array[0].astype(float), angles, circle=False)
    scale = 1e6 / sinogram.sum()
    low = random.poisson(0.1 * scale * sinogram) / (0.1 * scale)
    noise = iradon(low - sinogram, angles, output_size=50, filter_name=FILTER, circle=False)
    got = low_dose(volume, 0.1) - volume.array
    # variance at fraction f: 1/f for a new Poisson draw, 1/f - 1 for thinning of given counts
    assert got[MIDDLE].std() == pytest.approx(noise[20:30, 17:33].std() * np.sqrt(0.9), rel=0.15)


def test_low_dose_keeps_mean_activity_and_background_near_zero(volume):
    low = low_dose(volume, 0.25)
    assert low[MIDDLE].mean() == pytest.approx(5, rel=0.01)
    assert low[volume.array == 0].mean() < 0.02 * 5
    assert low_dose(volume, 0.25, counts=1e7).mean() == pytest.approx(volume.array.mean(), rel=0.02)
    assert low.min() >= 0


def test_low_dose_counts_refer_to_mean_slice_of_any_stack(volume):
    stack = Volume(np.concatenate([volume.array] * 3), volume.affine, "1.2", "SUV")
    one, three = (np.var((low_dose(one, 0.25) - one.array)[MIDDLE]) for one in (volume, stack))
    assert three / one == pytest.approx(1, rel=0.3)


def test_low_dose_noise_lies_at_activity_off_center(volume):
    """A wrong center of rotation in `radon` would shift the noise by half a pixel or more."""
    array = np.zeros_like(volume.array[:, :, :41])
    array[:, 30:38, 8:14] = 5
    change = np.abs(low_dose(Volume(array, volume.affine, "1.2", "SUV"), 0.1, counts=1e5) - array)
    weights = change.sum(0) * (change.sum(0) > 0.5 * change.sum(0).max())
    rows, columns = np.mgrid[:50, :41]
    assert (weights * rows).sum() / weights.sum() == pytest.approx(33.5, abs=0.6)
    assert (weights * columns).sum() / weights.sum() == pytest.approx(10.5, abs=0.6)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.1, float("nan")])
def test_simulate_low_dose_refuses_fraction_outside_range(volume, fraction):
    with pytest.raises(InputError, check=refusal("E-SIMULATE-01", dose_fraction=fraction)):
        low_dose(volume, fraction)


@pytest.mark.parametrize("counts", [0, -1.0, float("inf")])
def test_simulate_low_dose_refuses_counts_not_positive_and_finite(volume, counts):
    with pytest.raises(InputError, check=refusal("E-SIMULATE-02", total_counts=counts)):
        low_dose(volume, 0.5, counts=counts)


def test_simulate_low_dose_gives_negative_voxels_no_counts(volume):
    negative = volume.array.copy()
    negative[:, :3, :3] = -2
    low = low_dose(volume.with_array(negative), 0.25)
    np.testing.assert_array_equal(low[MIDDLE], low_dose(volume, 0.25)[MIDDLE])
    assert low.min() >= 0


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_simulate_low_dose_refuses_volume_without_activity(volume, value):
    with pytest.raises(InputError, check=refusal("E-SIMULATE-03", highest=value, unit="SUV")):
        low_dose(volume.with_array(np.full_like(volume.array, value)), 0.5)
