"""Gates: pure rules that say whether a candidate may become the champion, and why."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

PRIMARY = "ssim"


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate passed, and the reasons, one a rule."""

    passed: bool
    reasons: tuple[str, ...]


def beats_floor(
    candidate: Mapping[str, Mapping[str, float]], floor: Mapping[str, Mapping[str, float]], *, name: str
) -> Verdict:
    """The first champion's gate: a higher SSIM than without a network, on the mean over the test patients.

    Args:
        candidate: test patient -> metric -> value.
        floor: the same patients without a network.
        name: what was taken for the output there, see `medgan.tasks.Task.floor`.
    """
    assert candidate.keys() == floor.keys(), "both must be measured on the same patients"
    ours = statistics.fmean(values[PRIMARY] for values in candidate.values())
    theirs = statistics.fmean(values[PRIMARY] for values in floor.values())
    passed = ours > theirs
    word = "above" if passed else "not above"
    return Verdict(passed, (f"{PRIMARY} {ours:.4f} is {word} that of the {name}, {theirs:.4f}",))
