"""Finds settings of a search that cannot matter: nothing looks at them, or their loss term hardly moves the output."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from medgan.config import JUDGED, Config, flatten
from medgan.errors import InputError
from medgan.losses.gradient_shares import HARDLY_ACTS, shares_of, weight_for
from medgan.search.space import METHOD, Space
from medgan.training.build_networks import without_effect

LEAST, MOST = HARDLY_ACTS, 0.99
"""A weight is dead if the share of its term stays below the first or above the second over the whole range."""
WORTH_A_RANGE = (0.02, 0.5)
"""A suggested range gives the term shares from the first to the second."""
LAMBDA = "loss.lambda_"


@dataclass(frozen=True)
class WeightRange:
    """Says how strongly a searched weight lets its loss term move the generator's output.

    Attributes:
        setting: dotted path of the weight.
        low, high: smallest and largest share of the term in the gradient at the output, at the ends of the range or
            for any choice; other weights as in the first trial.
        better: range of the weight that would give the shares `WORTH_A_RANGE`; None: there is none, since this term
            alone moves the output, or does not.
    """

    setting: str
    low: float
    high: float
    better: tuple[float, float] | None

    @property
    def is_dead(self) -> bool:
        """Returns whether the weight cannot matter anywhere in its range."""
        return max(self.low, self.high) < LEAST or min(self.low, self.high) > MOST

    def __str__(self) -> str:
        shares = f"{share_text(self.low)} to {share_text(self.high)}"
        text = f"{self.setting} cannot matter: over its range its term has {shares} of the gradient at the output"
        if self.better is None:
            return f"{text}. Nothing else moves the output, or this term does not."
        low, high = self.better
        return f"{text}. A range of {low:.0e} to {high:.0e} would give 2 % to 50 %."


def share_text(share: float) -> str:
    """Returns a share as percent with two digits: `3.4 %`, `1.2e-08 %`."""
    return f"{100 * share:.2g} %"


def weight_ranges(space: Space, base: Config, norms: Mapping[str, float]) -> list[WeightRange]:
    """Returns what each searched weight of a generator's term does over its range.

    Args:
        base: configuration of the first trial, whose weights the other terms have.
        norms: norm of the gradient of each term at the output, without its weight.
    """
    weights = {path.removeprefix(LAMBDA): value for path, value in flatten(base).items() if path.startswith(LAMBDA)}
    found = []
    for setting in searched_weights(space):
        term = setting.removeprefix(LAMBDA)
        if term not in norms:
            continue
        shares = [shares_of(norms, {**weights, term: value})[term] for value in space.search[setting].ends]
        others = sum(weights.get(name, 0.0) * norm for name, norm in norms.items() if name != term)
        better = None
        if others and norms[term]:
            first, last = (weight_for(share, norm=norms[term], others=others) for share in WORTH_A_RANGE)
            better = _down(first), _up(last)
        found.append(WeightRange(setting, min(shares), max(shares), better))
    return found


def searched_weights(space: Space) -> list[str]:
    """Returns the searched settings that are weights of terms of the generator."""
    judged = {f"loss.{name}" for name in JUDGED}
    return [setting for setting in space.search if setting.startswith(LAMBDA) and setting not in judged]


def idle_settings(space: Space, base: Config) -> list[str]:
    """Returns the searched settings that no network and no term of any trial looks at."""
    tried, used = set[str](), set[str]()
    for chosen, config in _trials(space, base):
        tried |= chosen - {METHOD}
        used |= chosen - {*without_effect(config)}
    return [setting for setting in space.search if setting in tried - used]


def _trials(space: Space, base: Config) -> Iterator[tuple[set[str], Config]]:
    """Yields settings that move and the configuration, for trials that together show what each setting can do.

    Everything has its largest value but one setting, which takes each of its values in turn.
    """
    for method in space.names_of_methods or ("",):
        for setting, move in space.search.items():
            for value in move.ends if setting != METHOD else ():
                with suppress(InputError):  # incompatible settings: the search never runs such a trial
                    yield _picked(space, base, {METHOD: method, **space.needed_for(setting, base), setting: value})


def _picked(space: Space, base: Config, fixed: Mapping[str, Any]) -> tuple[set[str], Config]:
    chosen: set[str] = set()

    def choose(setting: str, move: Any) -> Any:
        chosen.add(setting)
        return fixed.get(setting, move.largest)

    return chosen, space.pick(base, choose)


def _down(value: float) -> float:
    """Rounds down to one digit."""
    power = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / power * (1 + 1e-9)) * power


def _up(value: float) -> float:
    """Rounds up to one digit."""
    power = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / power * (1 - 1e-9)) * power
