"""The gate passes equal candidates and better candidates as often as counted or simulated.

Only superiority is required: each further rule can only refuse more, so these rates are the highest possible. Size is
the share of candidates without an effect that pass at alpha 0.05; power is the share of candidates that are better by d
standard deviations of the patients' differences (normal):

    patients   size     d = 0.5   d = 1   d = 1.5
    6          3/64     0.26      0.64    0.91
    9          25/512   0.39      0.86    0.99
    20         0.05     0.69      1.00    1.00

Where the differences' mean is 0 but most patients gain a little and few lose much (1 minus an exponential), 0.11 (20
patients) to 0.15 (6) pass: the sign-flip test assumes symmetry; the rule `worst_patient` covers this case.
"""

import itertools
import math

import numpy as np
import pytest

from medgan.registry.gates import Evidence, judge
from medgan.registry.promotion_rules import Rules

REPETITIONS = 2000
SUPERIOR = Rules(non_inferior={}, worst_patient={})
BLOCKING = Rules(non_inferior={}, worst_patient={}, ledger="block")
POWER = {
    (6, 0.5): 0.26, (6, 1.0): 0.64, (6, 1.5): 0.91,
    (9, 0.5): 0.39, (9, 1.0): 0.86, (9, 1.5): 0.99,
    (20, 0.5): 0.69, (20, 1.0): 0.996, (20, 1.5): 1.0,
}  # fmt: skip
"""(patients, effect) -> power, from 20,000 simulated candidates each."""


def passes(candidate, champion, rules=SUPERIOR, *, tried=1):
    """Returns whether a candidate replaces a champion; each is given by its SSIM, (patients,)."""
    both = (
        Evidence({f"{number:02}": {"ssim": value} for number, value in enumerate(values)}, 10.0, 1.0, True)
        for values in (candidate, champion)
    )
    return judge(*both, rules, tried=tried).passed


def normal(random, shape):
    return random.normal(0.8, 0.02, shape)


def skewed(random, shape):
    """Draws values like SSIM, in which a few patients are much worse than the others; both models alike."""
    return 0.9 - random.exponential(0.05, shape)


def heavy(random, shape):
    """Draws values with tails without a variance (Student's t of 2 degrees of freedom)."""
    return 0.8 + 0.01 * random.standard_t(2, shape)


def uneven(random, shape):
    """Draws values whose spread differs between patients by factors of a hundred."""
    return 0.8 + 0.01 * random.normal(size=shape) * random.lognormal(0.0, 1.5, shape)


def within(share, expected, *, repetitions=REPETITIONS):
    """Returns whether a share is within four standard errors; one test in ten thousand fails by chance."""
    return abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / repetitions) + 1e-3


@pytest.mark.parametrize(("patients", "passing"), [(6, 3), (9, 25)])
def test_judge_passes_at_most_one_in_twenty_sign_patterns(patients, passing):
    """Counts all patterns: without an effect, differences of any sizes have each pattern of signs equally often."""
    sizes = np.random.default_rng(patients).exponential(0.02, patients)
    signs = itertools.product((-1.0, 1.0), repeat=patients)
    passed = sum(passes(0.8 + sizes * np.array(pattern), np.full(patients, 0.8)) for pattern in signs)
    assert passed == passing and passed / 2**patients <= 0.05


@pytest.mark.parametrize("draw", [normal, skewed, heavy, uneven])
@pytest.mark.parametrize(("patients", "size"), [(6, 3 / 64), (9, 25 / 512), (20, 0.05)])
def test_judge_passes_equal_candidate_at_most_once_in_twenty(patients, size, draw):
    random = np.random.default_rng([patients, 1])
    pairs = draw(random, (REPETITIONS, 2, patients))
    share = sum(passes(candidate, champion) for candidate, champion in pairs) / REPETITIONS
    assert size <= 0.05 and within(share, size), f"{share:.4f} of candidates that are no better pass"


@pytest.mark.parametrize(("patients", "effect"), POWER)
def test_judge_passes_better_candidate_as_often_as_tabulated(patients, effect):
    random = np.random.default_rng([patients, 2])
    differences = 0.01 * (effect + random.normal(size=(REPETITIONS, patients)))
    share = sum(passes(0.8 + gains, np.full(patients, 0.8)) for gains in differences) / REPETITIONS
    assert within(share, POWER[patients, effect]), f"{share:.4f} pass"


def test_judge_passes_candidate_at_margin_at_most_once_in_twenty():
    random = np.random.default_rng(3)
    rules = SUPERIOR.model_copy(update={"margin": 0.01})
    gains = 0.01 + random.normal(0.0, 0.02, (REPETITIONS, 9))
    share = sum(passes(0.8 + gain, np.full(9, 0.8), rules) for gain in gains) / REPETITIONS
    assert within(share, 25 / 512)


def test_non_inferiority_passes_loss_of_margin_at_most_once_in_twenty():
    random = np.random.default_rng(4)
    rules = Rules(primary="psnr", non_inferior={"ssim": 0.01}, worst_patient={})
    losses = -0.01 + random.normal(0.0, 0.02, (REPETITIONS, 9))
    share = 0
    for loss in losses:
        ours = {str(number): {"psnr": 31.0, "ssim": 0.8 + gain} for number, gain in enumerate(loss)}
        theirs = {str(number): {"psnr": 30.0, "ssim": 0.8} for number in range(9)}
        share += judge(*(Evidence(one, 10.0, 1.0, True) for one in (ours, theirs)), rules, tried=1).passed / REPETITIONS
    assert within(share, 25 / 512)


@pytest.mark.parametrize(
    ("rules", "bound"),
    [(BLOCKING, 0.05 * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5)), (SUPERIOR, None)],
    ids=["block", "report"],
)
def test_ledger_bounds_false_passes_of_five_candidates_in_turn(rules, bound):
    random = np.random.default_rng(5)
    repetitions = 600
    trails = normal(random, (repetitions, 5, 2, 20))
    share = sum(any(passes(*pair, rules, tried=k) for k, pair in enumerate(trail, 1)) for trail in trails) / repetitions
    expected = 1 - math.prod(1 - 0.05 / k for k in range(1, 6)) if bound else 1 - 0.95**5
    assert within(share, expected, repetitions=repetitions)
    assert bound is None or expected <= bound
