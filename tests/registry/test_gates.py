"""Verdicts of the gates agree with values by hand; the sign-flip test agrees with scipy."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refusal
from scipy.stats import permutation_test

from medgan.errors import InputError
from medgan.registry.gates import EXACT, Evidence, beats_floor, judge, sign_flip
from medgan.registry.promotion_rules import Rules

pytestmark = pytest.mark.unit

SUPERIOR = {"non_inferior": {}, "worst_patient": {}}
"""Requires superiority in the primary metric and enough patients, and nothing else."""
GAINS = (0.01, 0.02, 0.03, 0.015, 0.025, 0.012)


def patients(*values, metric="ssim"):
    return {f"p{number}": {metric: value} for number, value in enumerate(values)}


def evidence(*values, metric="ssim", **facts):
    return Evidence(
        patients(*values, metric=metric), **{"latency_ms": 10.0, "memory_gb": 1.0, "pretrained": True, **facts}
    )


def pair(gains, *, start=0.8, metric="ssim"):
    """Returns candidate and champion whose values differ by these gains."""
    return evidence(*(start + gain for gain in gains), metric=metric), evidence(*(start for _ in gains), metric=metric)


def reason(verdict, beginning):
    """Returns the only reason with this beginning."""
    (found,) = (text for text in verdict.reasons if text.startswith(beginning))
    return found


@pytest.mark.parametrize(("ours", "passed"), [((0.7, 0.5), True), ((0.5, 0.5), False), ((0.4, 0.5), False)])
def test_beats_floor_needs_mean_above_mean_image(ours, passed):
    verdict = beats_floor(patients(*ours), patients(0.4, 0.6), name="mean image")
    assert verdict.passed is passed
    assert ("not above" in verdict.reasons[0]) is not passed


def test_beats_floor_needs_same_patients():
    with pytest.raises(AssertionError, match="same patients"):
        beats_floor(patients(0.5), patients(0.5, 0.5), name="mean image")


def test_judge_passes_gain_of_all_six_patients():
    verdict = judge(*pair(GAINS), Rules(**SUPERIOR), tried=1)
    assert verdict.passed
    assert (verdict.p, verdict.adjusted_p) == (1 / 64, 1 / 64)
    assert verdict.reasons == (
        "ssim 0.8187 against 0.8, better by 0.01867, more than 0 needed: p 0.01562, adjusted for 1 tried on these "
        "patients 0.01562; at most 0.05 allowed: holds",
        "6 test patients, at least 6 needed: holds",
    )


def test_judge_refuses_loss_of_all_six_patients():
    candidate, champion = pair(GAINS)
    verdict = judge(champion, candidate, Rules(**SUPERIOR), tried=1)
    assert not verdict.passed and verdict.p == 1.0
    assert "worse by 0.01867" in reason(verdict, "ssim")


def test_model_is_not_better_than_itself():
    candidate, _ = pair(GAINS)
    assert judge(candidate, candidate, Rules(**SUPERIOR), tried=1).p == 1.0


def test_judge_refuses_where_two_of_six_patients_lose():
    verdict = judge(*pair((0.03, 0.02, 0.03, 0.02, -0.01, -0.01)), Rules(**SUPERIOR), tried=1)
    # In hundredths: for a sum of at least 8, the negative ones of 3, 2, 3, 2, 1, 1 add up to 2 at most: 6 patterns.
    assert verdict.p == 6 / 64 and not verdict.passed


def test_verdict_does_not_depend_on_order_of_patients():
    candidate, champion = pair((0.03, 0.02, 0.03, 0.02, -0.01, -0.01))
    turned = dataclasses.replace(candidate, patients=dict(reversed(candidate.patients.items())))
    assert judge(turned, champion, Rules(**SUPERIOR), tried=1) == judge(candidate, champion, Rules(**SUPERIOR), tried=1)


@pytest.mark.parametrize(("margin", "passed"), [(0.0, True), (0.009, True), (0.01, False), (0.02, False)])
def test_judge_passes_only_gain_above_margin(margin, passed):
    assert judge(*pair([0.01] * 6), Rules(**SUPERIOR, margin=margin), tried=1).passed is passed


@pytest.mark.parametrize(
    ("metric", "ours", "theirs", "passed"),
    [
        ("psnr", 30.0, 29.0, True),
        ("mae_hu_body", 80.0, 90.0, True),
        ("mae_hu_body", 90.0, 80.0, False),
        ("lpips", 0.1, 0.2, True),
        ("bias_hu", -5.0, 10.0, True),
        ("bias_hu", 5.0, -10.0, True),
        ("bias_hu", -10.0, 5.0, False),
    ],
)
def test_judge_compares_metric_in_better_direction(metric, ours, theirs, passed):
    candidate, champion = (evidence(*[value] * 6, metric=metric) for value in (ours, theirs))
    assert judge(candidate, champion, Rules(**SUPERIOR, primary=metric), tried=1).passed is passed


def test_worst_patient_by_bias_is_patient_whose_absolute_bias_grew_most():
    candidate, champion = evidence(-9.0, 1.0, 2.0, metric="bias_hu"), evidence(4.0, -8.0, 2.0, metric="bias_hu")
    rules = Rules(non_inferior={}, primary="bias_hu", worst_patient={"bias_hu": 5.0}, min_patients=3)
    reasons = judge(candidate, champion, rules, tried=1).reasons
    assert "bias_hu of one patient worse by 5 at most (patient p0), 5 allowed: holds" in reasons
    assert reasons[0].startswith("bias_hu 4 against 4.667, better by 0.6667, more than 0 needed")


@pytest.mark.parametrize(("tried", "adjusted"), [(1, 1 / 64), (3, 3 / 64), (4, 4 / 64), (100, 1.0)])
def test_ledger_adjusts_p_and_blocks_only_if_rules_say_block(tried, adjusted):
    reported = judge(*pair(GAINS), Rules(**SUPERIOR), tried=tried)
    blocked = judge(*pair(GAINS), Rules(**SUPERIOR, ledger="block"), tried=tried)
    assert reported.p == blocked.p == 1 / 64 and reported.adjusted_p == blocked.adjusted_p == adjusted
    assert reported.passed and blocked.passed is (adjusted <= 0.05)


def test_reason_names_number_of_patients_too_small_for_alpha():
    few = judge(*pair(GAINS[:4]), Rules(**SUPERIOR, min_patients=2), tried=1)
    assert not few.passed and few.p == 1 / 16
    assert "at most 0.05 allowed, which 4 patients cannot show: does not hold" in reason(few, "ssim")
    many = judge(*pair(GAINS), Rules(**SUPERIOR, ledger="block"), tried=4)
    assert "adjusted at most 0.05 allowed, which 6 patients cannot show: does not hold" in reason(many, "ssim")


def test_judge_refuses_fewer_patients_than_rules_need():
    verdict = judge(*pair(GAINS[:5]), Rules(**SUPERIOR), tried=1)
    assert verdict.p == 1 / 32 and not verdict.passed
    assert "5 test patients, at least 6 needed: does not hold" in verdict.reasons


@pytest.mark.parametrize(("lost", "passed"), [(0.0, True), (0.49, True), (0.5, False), (0.6, False)])
def test_non_inferiority_passes_only_loss_below_margin(lost, passed):
    candidate, champion = pair(GAINS)
    for number in range(6):
        candidate.patients[f"p{number}"]["psnr"] = 30 - lost
        champion.patients[f"p{number}"]["psnr"] = 30
    verdict = judge(candidate, champion, Rules(worst_patient={}), tried=1)
    assert verdict.passed is passed
    assert f"less than 0.5 may be lost: p {'0.01562' if passed else '1'}, at most 0.05" in reason(verdict, "psnr")


def test_non_inferiority_fails_for_mean_within_margin_with_large_spread():
    rules = Rules(non_inferior={"ssim": 0.01}, worst_patient={})
    verdict = judge(*pair((0.05, -0.06, 0.04, -0.05, 0.06, -0.06)), rules, tried=1)
    assert "worse by 0.003333, less than 0.01 may be lost: p 0.3906, at most 0.05 allowed: does not hold" in str(
        verdict.reasons
    )


@pytest.mark.parametrize(("loss", "passed"), [(0.05, True), (0.0501, False)])
def test_worst_patient_may_not_lose_more_than_rules_allow(loss, passed):
    rules = Rules(non_inferior={}, worst_patient={"ssim": 0.05})
    verdict = judge(*pair((*[0.1] * 8, -loss)), rules, tried=1)
    assert verdict.passed is passed
    holds = "holds" if passed else "does not hold"
    assert reason(verdict, "ssim of one patient") == (
        f"ssim of one patient worse by {loss:.4g} at most (patient p8), 0.05 allowed: {holds}"
    )


def test_worst_patient_loses_nothing_where_all_patients_gain():
    verdict = judge(*pair(GAINS), Rules(non_inferior={}, worst_patient={"ssim": 0.0}), tried=1)
    assert "ssim of one patient worse by 0 at most, 0 allowed: holds" in verdict.reasons


@pytest.mark.parametrize(
    ("metric", "values", "bound", "text", "passed"),
    [
        ("ssim", (0.7, 0.9), 0.8, "ssim 0.8, at least 0.8 needed: holds", True),
        ("ssim", (0.7, 0.9), 0.81, "ssim 0.8, at least 0.81 needed: does not hold", False),
        ("mae_hu", (70, 90), 80, "mae_hu 80, at most 80 allowed: holds", True),
        ("mae_hu", (70, 90), 79, "mae_hu 80, at most 79 allowed: does not hold", False),
        ("bias_hu", (-20, 20), 10, "bias_hu 20, at most 10 allowed: does not hold", False),
    ],
)
def test_judge_without_champion_decides_by_floors(metric, values, bound, text, passed):
    rules = Rules(**SUPERIOR, primary=metric, floors={metric: bound}, min_patients=2)
    verdict = judge(evidence(*values, metric=metric), None, rules, tried=1)
    assert verdict.passed is passed
    assert (verdict.p, verdict.adjusted_p) == (None, None)
    assert verdict.reasons == (
        "there is no champion to compare with",
        "2 test patients, at least 2 needed: holds",
        text,
    )


def test_judge_with_champion_applies_floors_too():
    verdict = judge(*pair(GAINS), Rules(**SUPERIOR, floors={"ssim": 0.9}), tried=1)
    assert not verdict.passed and "ssim 0.8187, at least 0.9 needed: does not hold" in verdict.reasons


@pytest.mark.parametrize(
    ("rule", "facts", "text"),
    [
        ({"max_latency_ms": 10.0}, {"latency_ms": 10.5}, "10.5 ms a slice, at most 10 allowed"),
        ({"max_memory_gb": 2.0}, {"memory_gb": 2.5}, "2.5 GB, at most 2 allowed"),
        ({"extractor": "pretrained"}, {"pretrained": False}, "feature extractor of random weights, a pretrained"),
    ],
)
def test_judge_applies_limits_that_rules_name(rule, facts, text):
    slow = evidence(*[0.8] * 6, **facts)
    assert judge(slow, None, Rules(**SUPERIOR), tried=1).passed
    verdict = judge(slow, None, Rules(**SUPERIOR, **rule), tried=1)
    assert not verdict.passed and reason(verdict, text).endswith("does not hold")
    assert judge(evidence(*[0.8] * 6), None, Rules(**SUPERIOR, **rule), tried=1).passed


def test_judge_refuses_nan_latency():
    assert not judge(
        evidence(*[0.8] * 6, latency_ms=math.nan), None, Rules(**SUPERIOR, max_latency_ms=9), tried=1
    ).passed


def test_judge_refuses_different_patients_of_candidate_and_champion():
    candidate, champion = pair(GAINS)
    others = dataclasses.replace(champion, patients={**champion.patients, "a": {"ssim": 0.5}, "b": {"ssim": 0.5}})
    with pytest.raises(InputError, check=refusal("E-GATE-04", listed="none", listed_2="2 (a, b)")):
        judge(candidate, others, Rules(**SUPERIOR), tried=1)


def test_judge_refuses_two_rules_of_the_body_mask():
    candidate, champion = pair(GAINS)
    other = dataclasses.replace(champion, mask_rule="another rule")
    with pytest.raises(InputError, check=refusal("E-GATE-05", ours="", theirs="another rule")):
        judge(candidate, other, Rules(**SUPERIOR), tried=1)


@pytest.mark.parametrize("rule", [{"primary": "vif"}, {"floors": {"vif": 0.1}}, {"worst_patient": {"vif": 0.1}}])
def test_judge_refuses_metric_that_was_not_measured(rule):
    expected = refusal("E-GATE-02", whose="candidate", patient="p0", metric="vif", values="ssim")
    with pytest.raises(InputError, check=expected):
        judge(*pair(GAINS), Rules(**{**SUPERIOR, **rule}), tried=1)


def test_judge_refuses_metric_missing_for_one_patient():
    candidate, champion = pair(GAINS)
    del champion.patients["p3"]["ssim"]
    with pytest.raises(
        InputError, check=refusal("E-GATE-02", whose="champion", patient="p3", metric="ssim", values="nothing")
    ):
        judge(candidate, champion, Rules(**SUPERIOR), tried=1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_judge_refuses_value_that_is_not_finite(value):
    candidate, champion = pair((*GAINS[:5], value))
    expected = refusal("E-GATE-03", whose="candidate", patient="p5", metric="ssim", values=value)
    with pytest.raises(InputError, check=expected):
        judge(candidate, champion, Rules(**SUPERIOR), tried=1)


def test_judge_refuses_evidence_without_patients():
    with pytest.raises(InputError, check=refusal("E-GATE-01", whose="candidate")):
        judge(evidence(), None, Rules(), tried=1)


@given(st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=11))
def test_sign_flip_agrees_with_exact_test_of_scipy(differences):
    """Whole numbers have exact sums: with others, scipy takes equal sums for different ones where they round apart."""
    given_ = np.array(differences, dtype=float)
    theirs = permutation_test(
        (given_,), np.sum, permutation_type="samples", vectorized=True, n_resamples=np.inf, alternative="greater"
    )
    assert sign_flip(given_) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sign_flip_of_many_patients_draws_patterns_close_to_exact_p():
    random = np.random.default_rng(3)
    gains = random.normal(0.25, 1.0, EXACT)
    exact = sign_flip(gains)
    drawn = sign_flip(np.append(gains, 0.0))  # a patient without a difference changes no sum
    assert 0.01 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 99_999)) and drawn != exact
    assert sign_flip(np.append(gains, 0.0)) == drawn, "the same patterns every time"
    assert sign_flip(np.ones(EXACT + 1)) == 1 / 100_000, "never 0"


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=12), st.integers(1, 100))
def test_sign_flip_p_never_grows_with_gain(differences, more):
    before = np.array(differences, dtype=float)
    after = before.copy()
    after[0] += more
    assert sign_flip(after) <= sign_flip(before)
