"""Decides by pure rules whether a candidate may become the champion, and says why."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgan.errors import InputError
from medgan.metrics.validation_metrics import comparable, direction, merit
from medgan.registry.promotion_rules import Rules

PRIMARY = "ssim"
EXACT = 32
"""Up to so many patients all patterns of signs are counted; for more, `RESAMPLES` patterns are drawn."""
RESAMPLES = 99_999
DECIMALS = 10
"""Differences are rounded to so many decimals, because an error of floating-point sums is no gain."""


@dataclass(frozen=True)
class Evidence:
    """Holds what was measured of a model on held-out test patients.

    Attributes:
        patients: test patient (hash) -> metric -> mean over the patient's slices.
        memory_gb: highest memory while translating.
        pretrained: whether the features in its training came from pretrained weights; true where none were used.
        mask_rule: how the body was told from the rest, see `medgan.data.manifest.Manifest`.
    """

    patients: Mapping[str, Mapping[str, float]]
    latency_ms: float
    memory_gb: float
    pretrained: bool
    mask_rule: str = ""


@dataclass(frozen=True)
class Verdict:
    """Says whether a candidate passed, and gives one reason for each rule.

    Attributes:
        reasons: sentences for a person: what was measured, the bound, whether it holds.
        p: one-sided p of "better than the champion"; None without a champion.
        adjusted_p: p adjusted for the number of candidates that were tried on these patients.
    """

    passed: bool
    reasons: tuple[str, ...]
    p: float | None = None
    adjusted_p: float | None = None


class _Finding(NamedTuple):
    holds: bool
    text: str


def beats_floor(
    candidate: Mapping[str, Mapping[str, float]], floor: Mapping[str, Mapping[str, float]], *, name: str
) -> Verdict:
    """Passes a first champion whose mean SSIM over the test patients is higher than without a network.

    Args:
        candidate: test patient -> metric -> value.
        floor: the same values of the same patients without a network.
        name: name of what replaced the output there, see `medgan.tasks.Task.floor`.
    """
    assert candidate.keys() == floor.keys(), "both must be measured on the same patients"
    ours = statistics.fmean(values[PRIMARY] for values in candidate.values())
    theirs = statistics.fmean(values[PRIMARY] for values in floor.values())
    passed = ours > theirs
    word = "above" if passed else "not above"
    return Verdict(passed, (f"{PRIMARY} {ours:.4f} is {word} that of the {name}, {theirs:.4f}",))


def judge(candidate: Evidence, champion: Evidence | None, rules: Rules, *, tried: int) -> Verdict:
    """Decides whether a candidate may replace the champion: every rule must hold.

    Superiority and non-inferiority are tests, not comparisons of means: `sign_flip` of the patients' differences, less
    the margin that must be exceeded, or plus the margin that may be lost. They hold where p <= alpha. A mean within its
    margin is not enough for non-inferiority: a candidate that is worse by the whole margin would pass half the time.
    As all rules must hold, alpha is not adjusted for the number of rules (intersection-union test, Berger 1982).

    The adjusted p is p x `tried` (Bonferroni), a bound on the probability that the best of so many candidates that are
    no better reaches such a p by chance. Of k candidates judged one after the other with `ledger: block`, a wrong one
    passes with a probability of at most alpha x (1 + 1/2 + ... + 1/k), as long as no candidate was made with knowledge
    of the earlier candidates' results on these patients.

    A bias is compared by its absolute value, patient by patient. Without a champion only the rules about the candidate
    alone apply: patients, floors, limits, extractor.

    Args:
        candidate: measurements of the candidate, on the same patients as the champion.
        champion: measurements of the champion; None: there is no champion yet.
        tried: number of distinct candidates tried on these test patients so far, including this one.

    Raises:
        InputError: the two were measured on different patients, with different rules for the body, or without a metric
            that a rule names.
    """
    assert tried >= 1, "the candidate itself has been tried"
    _refuse_incomplete("candidate", candidate, rules)
    alone = [*_patients(candidate, rules), *_floors(candidate, rules), *_limits(candidate, rules)]
    if champion is None:
        verdict = _verdict(alone)
        return replace(verdict, reasons=("there is no champion to compare with", *verdict.reasons))
    _refuse_incomplete("champion", champion, rules)
    _refuse_other_patients(candidate, champion)
    p = sign_flip(_gains(candidate, champion, rules.primary, less=rules.margin))
    adjusted = min(1.0, p * tried)
    findings = [
        _superior(candidate, champion, rules, p=p, adjusted=adjusted, tried=tried),
        *_not_inferior(candidate, champion, rules),
        *_worst_patients(candidate, champion, rules),
        *alone,
    ]
    return _verdict(findings, p=p, adjusted_p=adjusted)


def sign_flip(differences: NDArray[np.float64]) -> float:
    """Returns the one-sided p of the exact paired sign-flip test: the share of patterns that reach the observed sum.

    It is valid where the differences, if there is no effect, are independent and symmetric about 0, as they are when
    the two models are exchangeable; tails, scale and its change between patients do not matter. It is not a test of the
    mean: a model that gains a little with most patients and loses as much with a few passes too often; the rules'
    `worst_patient` covers that case. The smallest p of n patients is 2^-n.

    All 2^n patterns are counted (two halves, then both together) up to `EXACT` patients; for more, `RESAMPLES` patterns
    are drawn with a fixed seed, and the observed one is counted among them (Phipson & Smyth 2010).

    Source: Good, Permutation, Parametric and Bootstrap Tests of Hypotheses (2005); Edgington & Onghena,
    Randomization Tests (2007); Winkler et al., NeuroImage 92 (2014), sign-flipping.

    Args:
        differences: (n,), how much better each patient is.
    """
    reached = differences.sum() - 1e-12 * np.abs(differences).sum()  # a tie counts, however it was rounded
    if differences.size > EXACT:
        random = np.random.default_rng(0)
        drawn = np.zeros(RESAMPLES)
        for difference in differences:
            drawn += difference * random.choice((-1.0, 1.0), RESAMPLES)
        return float((1 + np.count_nonzero(drawn >= reached)) / (1 + RESAMPLES))
    half = differences.size // 2
    left, right = _signed_sums(differences[:half]), np.sort(_signed_sums(differences[half:]))
    below = np.searchsorted(right, reached - left, side="left").sum()
    return float(left.size * right.size - below) / 2.0**differences.size


def _signed_sums(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the sums of all 2^n patterns of signs."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate((sums + difference, sums - difference))
    return sums


def _superior(
    candidate: Evidence, champion: Evidence, rules: Rules, *, p: float, adjusted: float, tried: int
) -> _Finding:
    count, blocks = len(candidate.patients), rules.ledger == "block"
    text = (
        f"{_difference(candidate, champion, rules.primary)}, more than {rules.margin:g} needed: p {p:.4g}, "
        f"adjusted for {tried} tried on these patients {adjusted:.4g}; "
        f"{'adjusted ' if blocks else ''}at most {rules.alpha:g} allowed"
    )
    if (tried if blocks else 1) / 2**count > rules.alpha:
        text += f", which {count} patients cannot show"
    return _Finding((adjusted if blocks else p) <= rules.alpha, text)


def _not_inferior(candidate: Evidence, champion: Evidence, rules: Rules) -> Iterator[_Finding]:
    for metric, margin in rules.non_inferior.items():
        p = sign_flip(_gains(candidate, champion, metric, less=-margin))
        text = f"{_difference(candidate, champion, metric)}, less than {margin:g} may be lost: p {p:.4g}, at most"
        yield _Finding(p <= rules.alpha, f"{text} {rules.alpha:g} allowed")


def _worst_patients(candidate: Evidence, champion: Evidence, rules: Rules) -> Iterator[_Finding]:
    for metric, most in rules.worst_patient.items():
        gains = _gains(candidate, champion, metric)
        worst = int(gains.argmin())
        loss = max(0.0, -float(gains[worst]))
        who = f" (patient {sorted(candidate.patients)[worst]})" if loss else ""
        yield _Finding(loss <= most, f"{metric} of one patient worse by {loss:.4g} at most{who}, {most:g} allowed")


def _patients(candidate: Evidence, rules: Rules) -> Iterator[_Finding]:
    count = len(candidate.patients)
    yield _Finding(count >= rules.min_patients, f"{count} test patients, at least {rules.min_patients} needed")


def _floors(candidate: Evidence, rules: Rules) -> Iterator[_Finding]:
    for metric, bound in rules.floors.items():
        mean = _mean(candidate, metric)
        if direction(metric) == "max":
            yield _Finding(mean >= bound, f"{metric} {mean:.4g}, at least {bound:g} needed")
        else:
            yield _Finding(mean <= bound, f"{metric} {mean:.4g}, at most {bound:g} allowed")


def _limits(candidate: Evidence, rules: Rules) -> Iterator[_Finding]:
    if (latency := rules.max_latency_ms) is not None:
        holds = candidate.latency_ms <= latency
        yield _Finding(holds, f"{candidate.latency_ms:.4g} ms a slice, at most {latency:g} allowed")
    if (memory := rules.max_memory_gb) is not None:
        yield _Finding(candidate.memory_gb <= memory, f"{candidate.memory_gb:.4g} GB, at most {memory:g} allowed")
    if rules.extractor == "pretrained":
        word = "pretrained or not used" if candidate.pretrained else "of random weights"
        yield _Finding(candidate.pretrained, f"feature extractor {word}, a pretrained one or none needed")


def _verdict(findings: list[_Finding], *, p: float | None = None, adjusted_p: float | None = None) -> Verdict:
    reasons = tuple(f"{text}: {'holds' if holds else 'does not hold'}" for holds, text in findings)
    return Verdict(all(holds for holds, _ in findings), reasons, p, adjusted_p)


def _difference(candidate: Evidence, champion: Evidence, metric: str) -> str:
    gain = float(_gains(candidate, champion, metric).mean())
    ours, theirs = _mean(candidate, metric), _mean(champion, metric)
    word = "better" if gain >= 0 else "worse"
    return f"{metric} {ours:.4g} against {theirs:.4g}, {word} by {abs(gain):.4g}"


def _gains(candidate: Evidence, champion: Evidence, metric: str, *, less: float = 0.0) -> NDArray[np.float64]:
    """Returns (patients,): each patient's gain over the champion, less a margin, in the order of patient names."""
    ours, theirs = _values(candidate, metric, merit), _values(champion, metric, merit)
    return np.round(ours - theirs - less, DECIMALS)


def _mean(evidence: Evidence, metric: str) -> float:
    return round(float(_values(evidence, metric, comparable).mean()), DECIMALS)


def _values(evidence: Evidence, metric: str, counted: Callable[[str, float], float]) -> NDArray[np.float64]:
    """Returns (patients,): what `counted` gives of each patient's value, in the order of patient names."""
    return np.array([counted(metric, evidence.patients[patient][metric]) for patient in sorted(evidence.patients)])


def _refuse_incomplete(whose: str, evidence: Evidence, rules: Rules) -> None:
    if not evidence.patients:
        raise InputError("E-GATE-01", whose=whose)
    for patient, values in evidence.patients.items():
        for metric in sorted(rules.metrics - values.keys()):
            measured = ", ".join(sorted(values)) or "nothing"
            raise InputError("E-GATE-02", whose=whose, patient=patient, metric=metric, values=measured)
        for metric in sorted(rules.metrics):
            if not math.isfinite(values[metric]):
                raise InputError("E-GATE-03", whose=whose, patient=patient, metric=metric, values=values[metric])


def _refuse_other_patients(candidate: Evidence, champion: Evidence) -> None:
    ours, theirs = candidate.patients.keys(), champion.patients.keys()
    if ours != theirs:
        raise InputError("E-GATE-04", listed=_listed(ours - theirs), listed_2=_listed(theirs - ours))
    if candidate.mask_rule != champion.mask_rule:
        raise InputError("E-GATE-05", ours=candidate.mask_rule, theirs=champion.mask_rule)


def _listed(patients: Set[str]) -> str:
    some = sorted(patients)[:3]
    more = ", ..." if len(patients) > len(some) else ""
    return f"{len(patients)} ({', '.join(some)}{more})" if some else "none"
