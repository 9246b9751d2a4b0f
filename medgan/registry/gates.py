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


def beats_mean_image(
    candidate: Mapping[str, Mapping[str, float]], mean_image: Mapping[str, Mapping[str, float]]
) -> Verdict:
    """The first champion's gate: a higher SSIM than the mean training image, on the mean over the test patients.

    Args:
        candidate: test patient -> metric -> value.
        mean_image: the same patients with the mean image of the training targets as every output.
    """
    assert candidate.keys() == mean_image.keys(), "both must be measured on the same patients"
    ours = statistics.fmean(values[PRIMARY] for values in candidate.values())
    theirs = statistics.fmean(values[PRIMARY] for values in mean_image.values())
    passed = ours > theirs
    word = "above" if passed else "not above"
    return Verdict(passed, (f"{PRIMARY} {ours:.4f} is {word} the mean image's {theirs:.4f}",))
