"""The first champion's gate, by hand."""

import pytest

from medgan.registry.gates import beats_floor


def patients(*values):
    return {f"p{number}": {"ssim": value} for number, value in enumerate(values)}


@pytest.mark.parametrize(("ours", "passed"), [((0.7, 0.5), True), ((0.5, 0.5), False), ((0.4, 0.5), False)])
def test_the_mean_over_patients_must_be_above_the_mean_images(ours, passed):
    verdict = beats_floor(patients(*ours), patients(0.4, 0.6), name="mean image")
    assert verdict.passed is passed
    assert ("not above" in verdict.reasons[0]) is not passed


def test_other_patients_cannot_be_compared():
    with pytest.raises(AssertionError, match="same patients"):
        beats_floor(patients(0.5), patients(0.5, 0.5), name="mean image")
