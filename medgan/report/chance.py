"""Says which findings of a study may be chance: the importances of its settings, and the lead of its best trial."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from medgan.report.study_overview import Overview, Scored, short_names

SEED = "train.seed"


def importances_text(overview: Overview) -> str | None:
    """Returns a sentence for each goal: which settings can be told from chance; None if there are no importances."""
    if isinstance(overview.importances, str):
        return None
    short, sentences = short_names(overview.settings), []
    for goal, found in zip(overview.goals, overview.importances, strict=True):
        count = f"{len(found.above)} of" if found.above else "None of the"
        aim = f" for {goal.metric}" if len(overview.goals) > 1 else ""
        names = f": {', '.join(short[name] for name in found.above)}" if found.above else ""
        sentences.append(f"{count} {len(short)} settings can be told from chance{aim}{names}.")
    return " ".join(sentences)


@dataclass(frozen=True)
class SeedSpread:
    """Holds how much trials differ that have the same settings and different seeds.

    Attributes:
        deviation: standard deviation of the first goal, pooled over the groups of trials with the same settings.
        num_groups: groups of at least two trials.
    """

    deviation: float
    num_trials: int
    num_groups: int


def spread_between_seeds(overview: Overview) -> SeedSpread | None:
    """Returns the spread between complete trials that differ in `train.seed` alone; None if there are no two of them.

    Pruned trials do not count: they ended earlier too. Of trials with the same seed, the first one counts.
    """
    groups: dict[frozenset[tuple[str, object]], dict[int, float]] = {}
    for one in overview.scored:
        if SEED in one.trial.params and one.trial.state == TrialState.COMPLETE:
            groups.setdefault(_without_seed(one), {}).setdefault(one.trial.params[SEED], one.values[0])
    repeated = [list(group.values()) for group in groups.values() if len(group) > 1]
    if not repeated:
        return None
    return SeedSpread(pooled_deviation(repeated), sum(map(len, repeated)), len(repeated))


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """Returns the standard deviation of groups around their own means; each group has two values or more."""
    squares = sum((value - sum(group) / len(group)) ** 2 for group in groups for value in group)
    return math.sqrt(squares / sum(len(group) - 1 for group in groups))


def lead_of_best(overview: Overview) -> float | None:
    """Returns how much better the best trial is than the best one with other settings; None if there is no other.

    A trial that differs from the best one in its seed alone is no other; a trial that cannot be best does not count.
    """
    best = overview.best
    if best is None:
        return None
    own, sign = _without_seed(best), 1 if overview.goals[0].mode == "max" else -1
    eligible: Iterable[Scored] = (one for one in overview.scored if one.trial.number in overview.eligible)
    leads = [sign * (best.values[0] - one.values[0]) for one in eligible if _without_seed(one) != own]
    return min(leads, default=None)


def _without_seed(one: Scored) -> frozenset[tuple[str, object]]:
    return frozenset((name, value) for name, value in one.trial.params.items() if name != SEED)


def spread_text(overview: Overview) -> str | None:
    """Says how large the spread between seeds is, and whether the best trial leads by more; None without best trial."""
    spread, lead = spread_between_seeds(overview), lead_of_best(overview)
    if spread is None:
        doubt = "" if lead is None else f", so the lead of the best trial ({_shown(lead, lead)}) may be chance"
        return f"not known: no two trials differ in their seed alone{doubt}." if overview.best else None
    found = (
        f"{_shown(spread.deviation, spread.deviation)} (standard deviation of {overview.goals[0].metric}, "
        f"{spread.num_trials} trials of {spread.num_groups} setting{'s' if spread.num_groups > 1 else ''})."
    )
    if lead is None:
        return found
    of_difference = 2 * math.sqrt(2) * spread.deviation
    size, end = (
        ("more", "the winner stands") if lead > of_difference else ("less", "another seed may name another winner")
    )
    return (
        f"{found} The best trial leads the next other setting by {_shown(lead, spread.deviation)}: {size} than twice "
        f"the spread of a difference ({_shown(of_difference, spread.deviation)}), so {end}."
    )


def _shown(value: float, like: float) -> str:
    """Returns a value with the decimals that show two digits of another one."""
    places = max(1 - math.floor(math.log10(like)), 0) if like > 0 else 4
    return f"{value:.{places}f}"
