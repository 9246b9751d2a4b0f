from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.config import Config, with_values
from medgan.data.prepare.resample import in_plane_grid, resample
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.inference.translator import Translator, translate_slices, translate_volume
from medgan.training.build_networks import build_generator

pytestmark = pytest.mark.unit

Build = Callable[..., Translator]


def as_hu(suv: np.ndarray) -> np.ndarray:
    """Returns the output of the identity network for SUV inside the window."""
    return suv * 300 - 1000


@pytest.mark.parametrize("shape", [(1, 8, 16), (2, 7, 9), (3, 1, 1), (1, 17, 8)])
def test_identity_network_returns_every_pixel(translator_of: Build, shape: tuple[int, int, int]) -> None:
    suv = np.random.default_rng(1).uniform(0, 10, shape).astype(np.float32)
    output = translate_slices(translator_of(), suv)
    assert output.shape == shape and output.dtype == np.float32
    np.testing.assert_allclose(output, as_hu(suv), atol=1e-3)


def test_translate_slices_clips_values_outside_window(translator_of: Build) -> None:
    output = translate_slices(translator_of(), np.full((1, 8, 8), 25.0))
    np.testing.assert_allclose(output, 2000, atol=1e-3)


@pytest.mark.parametrize(("size", "sides"), [(4, (4, 8)), (8, (8, 8)), (10, (12, 12))])
def test_translate_slices_pads_with_background_to_training_grid(
    translator_of: Build, size: int, sides: tuple[int, int]
) -> None:
    class Seen(nn.Module):
        divisor = 4

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            self.source = source.clone()
            return source

    network = Seen()
    translate_slices(translator_of(network, size=size), np.full((1, 2, 5), 10.0))
    expected = np.full(sides, -1.0)
    top, left = (sides[0] - 2) // 2, (sides[1] - 5) // 2
    expected[top : top + 2, left : left + 5] = 1.0
    np.testing.assert_array_equal(network.source[0, 0].numpy(), expected)


def test_translate_slices_takes_slices_smaller_than_network_needs(translator_of: Build) -> None:
    network = build_generator(with_values(Config(), {"generator.network": "resnet", "generator.base_channels": 4}))
    with pytest.raises(ValueError, check=refusal("E-NETWORK-14", rows=4, columns=4)):
        network(torch.zeros(1, 1, 4, 4))
    assert translate_slices(translator_of(network), np.full((1, 1, 3), 5.0)).shape == (1, 1, 3)


def test_translate_slices_gives_same_for_batches_of_one_and_three(translator_of: Build) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1))
    network.add_module("tanh", nn.Tanh())
    network.divisor = 2
    suv = np.random.default_rng(2).uniform(0, 10, (7, 6, 6)).astype(np.float32)
    translator = translator_of(network)
    one, three = (translate_slices(translator, suv, batch_size=size) for size in (1, 3))
    np.testing.assert_allclose(one, three, atol=1e-3)


def test_identity_network_returns_resampled_volume(translator_of: Build, volume: Volume) -> None:
    output = translate_volume(translator_of(spacing_mm=2.0, size=32), volume)
    placed = resample(volume, in_plane_grid(volume, spacing_mm=2.0, size=32), 0.0)
    # 8 columns of 4 mm reach 16 mm from the middle, 6 rows of 5 mm reach 15; pixel centers lie at 1, 3, ... 15 mm:
    # 16 of the 32 lie inside in both directions, the last rows exactly on the border.
    inside = placed.array[:, 8:24, 8:24]
    assert output.array.shape == (3, 16, 16)
    np.testing.assert_allclose(output.array, as_hu(inside), atol=1e-2)
    assert output.unit == "HU" and output.frame_of_reference == volume.frame_of_reference
    np.testing.assert_allclose(output.spacing_mm, (2.0, 2.0, 3.27))


def test_translate_volume_keeps_place_of_each_pixel(translator_of: Build, volume: Volume) -> None:
    """A ramp along x, y and z of the patient stays that ramp."""
    s, r, c = np.indices(volume.array.shape)
    to_mm = volume.affine @ np.stack([c, r, s, np.ones_like(c)]).reshape(4, -1)
    ramp = (np.array([0.05, 0.03, 0.01]) @ (to_mm[:3] - to_mm[:3].mean(1, keepdims=True)) + 5).reshape(s.shape)
    output = translate_volume(translator_of(spacing_mm=1.5, size=32), volume.with_array(ramp.astype(np.float32)))
    s, r, c = np.indices(output.array.shape)
    there = output.affine @ np.stack([c, r, s, np.ones_like(c)]).reshape(4, -1)
    expected = as_hu(np.array([0.05, 0.03, 0.01]) @ (there[:3] - to_mm[:3].mean(1, keepdims=True)) + 5)
    assert output.array.shape == (3, 20, 22)
    inner = np.s_[:, 2:-2, 2:-2]  # the outermost half pixel of the source is extrapolated
    np.testing.assert_allclose(output.array[inner], expected.reshape(s.shape)[inner], atol=1e-1)


def test_translate_volume_does_not_extend_small_grid(translator_of: Build, volume: Volume) -> None:
    assert translate_volume(translator_of(spacing_mm=1.0, size=8), volume).array.shape == (3, 8, 8)


def test_translate_volume_reports_number_of_slices(translator_of: Build, volume: Volume) -> None:
    seen: list[tuple[int, int]] = []
    translate_volume(translator_of(), volume, batch_size=2, progress=lambda *step: seen.append(step))
    assert seen == [(2, 3), (3, 3)]


def test_translate_volume_refuses_other_unit(translator_of: Build, volume: Volume) -> None:
    with pytest.raises(
        InputError, check=refusal("E-TRANSLATE-07", task_name="pet2ct", modality="PT", unit="SUV", unit_2="HU")
    ):
        translate_volume(translator_of(), volume.with_array(volume.array, "HU"))


def test_translate_slices_refuses_wrong_shape_and_values_not_finite(translator_of: Build) -> None:
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-08", values_shape="(8, 8)")):
        translate_slices(translator_of(), np.zeros((8, 8)))
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-09", bad=2, values_size=16)):
        translate_slices(translator_of(), np.where(np.arange(16).reshape(1, 4, 4) < 2, np.inf, 0))
