import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from refusal import refusal

from medgan.data.prepare.motion import Motion, apply_motion, draw_motion
from medgan.data.volume import Volume
from medgan.errors import InputError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def volume():
    """A bright box with a darker core, off-center in the scanner."""
    array = np.zeros((10, 40, 48), np.float32)
    array[2:8, 8:32, 10:38] = 300
    array[4:6, 15:25, 18:30] = 120
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    affine[:3, 3] = (-70, 30, -812)
    return Volume(array, affine, "1.2.3", "a.u.")


def drawn(seed, severity=1.0):
    return draw_motion(np.random.default_rng(seed), severity=severity)


def error(volume, motion):
    return float(np.abs(apply_motion(volume, motion).array - volume.array).mean())


def test_apply_motion_with_same_seed_gives_same_image(volume):
    first, again, other = (apply_motion(volume, drawn(seed)).array for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_apply_motion_of_severity_zero_returns_given_volume(volume):
    assert apply_motion(volume, drawn(1, 0.0)) is volume


@pytest.mark.parametrize("severity", [-0.1, float("nan"), float("inf")])
def test_draw_motion_refuses_severity_below_zero_or_not_finite(severity):
    with pytest.raises(InputError, check=refusal("E-SIMULATE-04", severity=severity)):
        drawn(1, severity)


def test_draw_motion_scales_movements_but_not_times_with_severity():
    half, full = drawn(4, 0.5), drawn(4, 1.0)
    np.testing.assert_allclose(np.multiply(half.degrees, 2), full.degrees)
    np.testing.assert_allclose(np.multiply(half.translation_mm, 2), full.translation_mm)
    assert half.times == full.times
    assert 0 < full.times[0] < full.times[1] < 1


def test_draw_motion_of_severity_one_reaches_ten_degrees_and_millimeters():
    motions = [drawn(seed) for seed in range(300)]
    for values in ([one.degrees for one in motions], [one.translation_mm for one in motions]):
        assert 9.5 < np.abs(values).max() <= 10
        assert np.shape(values) == (300, 2, 3)


def test_apply_motion_error_grows_with_severity_on_average(volume):
    means = [np.mean([error(volume, drawn(seed, severity)) for seed in range(6)]) for severity in (0.1, 0.3, 0.6, 1.0)]
    assert all(np.diff(means) > 0)
    assert means[-1] > 10


def test_apply_motion_keeps_grid_and_unit_and_non_negative_values(volume):
    moved = apply_motion(volume, drawn(3))
    assert moved.array.shape == volume.array.shape
    assert moved.array.dtype == np.float32
    np.testing.assert_array_equal(moved.affine, volume.affine)
    assert (moved.unit, moved.frame_of_reference) == ("a.u.", "1.2.3")
    assert moved.array.min() >= 0
    assert np.isfinite(moved.array).all()


def test_motion_written_as_json_replays_exactly(volume):
    motion = drawn(5)
    replayed = Motion(**json.loads(json.dumps(asdict(motion))))
    assert replayed == motion
    np.testing.assert_array_equal(apply_motion(volume, replayed).array, apply_motion(volume, motion).array)


def test_apply_motion_does_not_depend_on_position_in_scanner(volume):
    affine = volume.affine.copy()
    affine[:3, 3] = 0
    motion = drawn(6)
    np.testing.assert_allclose(
        apply_motion(replace(volume, affine=affine), motion).array, apply_motion(volume, motion).array, atol=1e-2
    )


def test_apply_motion_ghosts_run_along_rows_axis(volume):
    """Ghosts spread along the axis of phase encoding; columns beside the object stay dark."""
    motion = Motion([[0.0, 0.0, 0.0]], [[4.0, 0.0, 0.0]], [0.7])
    moved = apply_motion(volume, motion).array
    beside_rows, beside_columns = moved[5, :7, 18:30], moved[5, 12:28, :8]
    assert beside_rows.mean() > 5 * beside_columns.mean()


def test_apply_motion_of_shift_after_scan_changes_nothing(volume):
    motion = Motion([[0.0, 0.0, 0.0]], [[0.0, 8.0, 0.0]], [1.0])
    moved = apply_motion(volume, motion).array
    np.testing.assert_allclose(moved, volume.array, atol=1e-2)


def test_apply_motion_of_uniform_volume_changes_nothing(volume):
    uniform = volume.with_array(np.full(volume.array.shape, 100, np.float32))
    np.testing.assert_allclose(apply_motion(uniform, drawn(7)).array, 100, rtol=1e-4)


def test_apply_motion_shift_equals_shift_in_numpy_k_space(volume):
    """Reference: from the movement on, lines come from the image shifted by four pixels of 2 mm, padded by as many."""
    motion = Motion([[0.0, 0.0, 0.0]], [[0.0, 8.0, 0.0]], [0.7])
    padded = np.pad(volume.array, ((0, 0), (4, 4), (0, 0)))
    still, moved = (np.fft.fftshift(np.fft.fft(image, axis=1), 1) for image in (padded, np.roll(padded, -4, axis=1)))
    first = int(0.7 * padded.shape[1])
    still[:, first:] = moved[:, first:]
    expected = np.abs(np.fft.ifft(np.fft.ifftshift(still, 1), axis=1).real)[:, 4:-4]
    assert np.abs(expected - volume.array).mean() > 1
    np.testing.assert_allclose(apply_motion(volume, motion).array, expected, atol=0.05)
