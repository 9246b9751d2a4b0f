"""Statistics of a comparison agree with values by hand: means, both spreads, paired test, Holm, failed runs."""

import numpy as np
import pytest
from refusal import refusal

from medgan.errors import InputError
from medgan.report.comparison_statistics import (
    MethodResults,
    Results,
    Run,
    differences,
    goodness,
    holm,
    score,
    smallest_p,
    two_sided,
)

pytestmark = pytest.mark.unit


def run(seed, *values, metric="ssim"):
    return Run(seed, {f"patient{place}": {metric: value} for place, value in enumerate(values)})


def compared(*methods, reference="medgan"):
    names = tuple(method.name for method in methods)
    return Results("PET -> CT", {}, {"Table I": names}, {method.name: method for method in methods}, reference)


def test_score_is_mean_over_seeds_and_patients_with_both_spreads():
    found = score(MethodResults("medgan", (run(0, 0.5, 0.7), run(1, 0.7, 0.9))), "ssim")
    assert found.mean == pytest.approx(0.7)
    assert found.over_seeds == pytest.approx(np.std([0.6, 0.8], ddof=1)), "of the seeds' means over patients"
    assert found.over_patients == pytest.approx(np.std([0.6, 0.8], ddof=1)), "of the patients' means over seeds"


def test_score_does_not_mix_spread_over_seeds_and_over_patients():
    found = score(MethodResults("medgan", (run(0, 0.1, 0.9), run(1, 0.1, 0.9))), "ssim")
    assert found.over_seeds == 0
    assert found.over_patients == pytest.approx(0.8 / 2**0.5)


def test_score_of_one_seed_and_one_patient_has_no_spread():
    assert score(MethodResults("medgan", (run(0, 0.5),)), "ssim") == (0.5, None, None)


def test_score_skips_failed_runs_and_is_none_without_other_runs():
    failed = Run(1, None, "diverged: not finite")
    assert score(MethodResults("pan", (run(0, 0.5), failed)), "ssim").mean == 0.5
    assert score(MethodResults("pan", (failed,)), "ssim") is None
    assert MethodResults("pan", (run(0, 0.5), failed, failed)).failures == "2 diverged: not finite"


def test_score_leaves_out_patient_without_metric():
    runs = tuple(Run(seed, {"a": {"ssim": 0.5 + seed / 10}, "b": {"psnr": 20.0}}) for seed in range(2))
    assert score(MethodResults("medgan", runs), "ssim").mean == pytest.approx(0.55)
    assert score(MethodResults("medgan", runs), "vif") is None


def test_holm_agrees_with_values_by_hand():
    # 3 x 0.01, 2 x 0.02, and 0.03 raised to the value before it
    assert holm({"c": 0.03, "a": 0.01, "b": 0.02}) == {"a": 0.03, "b": 0.04, "c": 0.04}
    assert holm({"a": 0.5, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize(
    ("gains", "p"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # one of 8 patterns reaches the sum of 6, one its opposite
        ([-1.0, -2.0, -3.0], 2 / 8),
        ([-1.0, 2.0, 3.0], 4 / 8),  # 6 and 4 reach 4, and both opposites
        ([1.0, -1.0], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
    ],
)
def test_two_sided_agrees_with_values_by_hand(gains, p):
    assert two_sided(np.array(gains)) == p


def test_smallest_p_is_p_of_gain_in_every_patient():
    assert smallest_p(6) == two_sided(np.full(6, 0.1)) == 2 / 64
    assert smallest_p(1) == 1


def test_differences_test_each_method_against_reference_with_adjusted_p():
    medgan = MethodResults("medgan", (run(0, 0.5, 0.6, 0.7),))
    worse, mixed = MethodResults("cgan", (run(0, 0.4, 0.5, 0.6),)), MethodResults("pan", (run(0, 0.6, 0.4, 0.4),))
    found = differences(compared(medgan, worse, mixed), "Table I", "ssim")
    assert list(found) == ["cgan", "pan"]
    assert found["cgan"] == (0.25, 0.5, 3)
    assert found["pan"].p == 0.5  # sums of +-0.1 +-0.2 +-0.3: 0.6 and 0.4 reach 0.4
    assert found["pan"].adjusted == 0.5


def test_differences_pair_means_over_seeds_by_patient():
    ours = MethodResults("medgan", (run(0, 0.5, 0.1), run(1, 0.7, 0.3)))
    theirs = MethodResults("cgan", (Run(0, {"patient1": {"ssim": 0.2}, "patient0": {"ssim": 0.6}}),))
    assert differences(compared(ours, theirs), "Table I", "ssim")["cgan"].p == 1.0, "they are equal, patient by patient"


def test_differences_compare_absolute_bias_of_each_patient():
    centered = MethodResults("medgan", (run(0, -1.0, 1.0, metric="bias_hu"),))
    shifted = MethodResults("cgan", (run(0, -30.0, 30.0, metric="bias_hu"),))
    assert score(shifted, "bias_hu").mean == 0.0, "the figure keeps its sign"
    assert goodness(shifted, "bias_hu") == {"patient0": -30.0, "patient1": -30.0}
    assert differences(compared(centered, shifted), "Table I", "bias_hu")["cgan"].p == 0.5


def test_goodness_of_error_is_negative():
    assert goodness(MethodResults("medgan", (run(0, 3.0, metric="mse"),)), "mse") == {"patient0": -3.0}


def test_differences_are_empty_where_reference_failed_or_is_absent():
    failed, other = MethodResults("medgan", (Run(0, None, "diverged"),)), MethodResults("cgan", (run(0, 0.5),))
    assert differences(compared(failed, other), "Table I", "ssim") == {}
    assert differences(compared(other), "Table I", "ssim") == {}
    assert "cgan" not in differences(compared(MethodResults("medgan", (run(0, 0.5),)), failed), "Table I", "ssim")


def test_results_refuse_table_with_unknown_method():
    with pytest.raises(InputError, check=refusal("E-REPORT-01", table="Table II", methods="medgan", name="pan")):
        Results("PET -> CT", {}, {"Table II": ("pan",)}, {"medgan": MethodResults("medgan", (run(0, 0.5),))})


def test_results_refuse_runs_on_different_patients():
    with pytest.raises(
        InputError,
        check=refusal("E-REPORT-02", method_name="cgan", seed=3, num_first=2, num_patients=1, num_patients_2=1),
    ):
        compared(MethodResults("medgan", (run(0, 0.5, 0.6),)), MethodResults("cgan", (run(3, 0.5),)))
