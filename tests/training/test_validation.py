from dataclasses import dataclass

import numpy as np
import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.data.intensity import from_network
from medgan.errors import Diverged
from medgan.metrics.validation_metrics import overall_means, patient_means
from medgan.training.runtime import SingleProcess
from medgan.training.validation import evaluate, evaluate_image, fixed_pictures

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


@dataclass
class FakeRank:
    """Replaces one of several ranks, which run one after the other; `collected` holds the rows of all ranks so far."""

    rank: int
    size: int
    collected: list
    device: torch.device = CPU

    def mean(self, values):
        return dict(values)

    def gather(self, rows):
        self.collected.append(list(rows))
        return [row for part in self.collected for row in part]


class Broken(nn.Module):
    """Returns NaN for some sources."""

    def forward(self, source):
        return torch.where(source.mean() > 0, torch.full_like(source, torch.nan), source)


@pytest.fixture
def generator(small, make_state):
    return make_state(small()).generator


@pytest.mark.parametrize("num_slices", [5, 6])
def test_evaluate_on_two_ranks_equals_evaluate_on_one_rank(generator, make_slices, num_slices):
    slices = make_slices(num_slices)
    collected = []
    for rank in (0, 1):
        rows = evaluate(generator, slices, FakeRank(rank, 2, collected), batch_size=2)
    alone = evaluate(generator, slices, SingleProcess(CPU), batch_size=3)
    assert len(rows) == len(alone) == num_slices, "every slice once, none padded"
    for one, other in zip(sorted(rows), sorted(alone), strict=True):
        assert one[:2] == other[:2]
        assert one.values == pytest.approx(other.values, rel=1e-5, nan_ok=True)
    assert overall_means(patient_means(rows)) == pytest.approx(
        overall_means(patient_means(alone)), rel=1e-5, nan_ok=True
    )


def test_evaluate_accepts_more_ranks_than_slices(generator, make_slices):
    collected = []
    for rank in range(3):
        rows = evaluate(generator, make_slices(2), FakeRank(rank, 3, collected))
    assert len(rows) == 2


def test_evaluate_returns_patient_slice_and_errors_in_hu(generator, make_slices):
    slices = make_slices(4)
    rows = evaluate(generator, slices, SingleProcess(CPU))
    assert [row[:2] for row in rows] == list(zip(slices.patients, slices.slice_numbers, strict=True))
    with torch.no_grad():
        output, target = generator.eval()(slices.sources), slices.targets
    error = 1500 * (output - target).abs()
    for index, row in enumerate(rows):
        assert row.values["mae_hu"] == pytest.approx(float(error[index].mean()), rel=1e-4)
        assert row.values["mae_hu_body"] == pytest.approx(float(error[index][slices.mask(index)].mean()), rel=1e-4)


def test_evaluate_does_not_swap_source_and_target(make_slices):
    slices = make_slices(3)
    rows = evaluate(nn.Identity(), slices, SingleProcess(CPU))
    expected = 1500 * (slices.sources - slices.targets).abs().mean(dim=(1, 2, 3))
    assert [row.values["mae_hu"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-4)


def test_evaluate_refuses_output_that_is_not_finite(make_slices):
    network = Broken().train()
    with pytest.raises(Diverged, check=refusal("E-TRAIN-03", num_slices=4)):
        evaluate(network, make_slices(4), SingleProcess(CPU), batch_size=1)
    assert network.training


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_uses_evaluation_mode_and_restores_mode_of_generator(make_slices, training):
    modes = []

    class Watched(nn.Module):
        def forward(self, source):
            modes.append((self.training, torch.is_grad_enabled()))
            return source

    network = Watched().train(training)
    evaluate(network, make_slices(2), SingleProcess(CPU))
    fixed_pictures(network, make_slices(2), CPU)
    assert modes == [(False, False)] * 2
    assert network.training is training


def test_evaluate_image_measures_constant_output_for_every_slice(make_slices):
    slices = make_slices(5)
    image = torch.full((16, 16), 0.25)
    rows = evaluate_image(image, slices, batch_size=2)
    expected = 1500 * (0.25 - slices.targets).abs().mean(dim=(1, 2, 3))
    assert [row.values["mae_hu"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-4)
    assert [row.slice_number for row in rows] == slices.slice_numbers


def test_fixed_pictures_show_same_slices_in_unit_of_target(generator, make_slices):
    slices = make_slices(40)
    pictures = fixed_pictures(generator, slices, CPU)
    assert [picture.shape for picture in pictures.values()] == [(4, 16, 16)] * 3 + [(4,)]
    assert list(pictures["titles"]) == [f"patient {slices.patients[index]} slice {index}" for index in (5, 15, 24, 34)]
    np.testing.assert_allclose(pictures["target"][0], from_network(slices.targets[5, 0].numpy(), (-1000, 2000)))
    np.testing.assert_array_equal(pictures["source"][1], slices.sources[15, 0])
    again = fixed_pictures(generator, slices, CPU)
    assert all(np.array_equal(pictures[name], again[name]) for name in pictures)


def test_fixed_pictures_of_two_slices_show_each_slice_once(generator, make_slices):
    assert len(fixed_pictures(generator, make_slices(2), CPU)["titles"]) == 2


class Collapsed(nn.Module):
    """Returns the same image for every source."""

    def forward(self, source):
        return torch.full_like(source, -1.0)


def test_evaluate_refuses_same_output_for_every_source(make_slices):
    with pytest.raises(Diverged, check=refusal("E-TRAIN-04", num_slices=4)):
        evaluate(Collapsed(), make_slices(4), SingleProcess(CPU), batch_size=2)


class Saturated(nn.Module):
    """Follows the source, but returns only the lowest and the highest value."""

    def forward(self, source):
        return torch.where(source > source.mean(), 1.0, -1.0)


def test_evaluate_refuses_output_of_only_black_and_white(make_slices):
    with pytest.raises(Diverged, check=refusal("E-TRAIN-05", num_slices=4)):
        evaluate(Saturated(), make_slices(4), SingleProcess(CPU), batch_size=2)


def test_evaluate_accepts_constant_output_for_single_slice(make_slices):
    assert len(evaluate(Collapsed(), make_slices(1), SingleProcess(CPU))) == 1
