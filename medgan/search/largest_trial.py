"""The trial of a space that needs the most memory; a space whose largest trial does not fit is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medgan.config import Config, flatten
from medgan.errors import InputError
from medgan.search.parameters import Condition, Move
from medgan.search.space import Space
from medgan.training.memory_estimate import Estimate, estimate, gigabytes

CERTAINLY = 1.5
"""An estimate so many times what there is leaves no doubt; what is nearer, one real step has to tell."""
MOST_ESTIMATES = 32
DEEPER_IS_NOT_LARGER = ("generator.depth", "discriminator.patch")


@dataclass(frozen=True)
class Largest:
    """The trial of a space that needs the most memory: its configuration, what moved there, and what it needs."""

    config: Config
    values: dict[str, Any]
    estimate: Estimate

    def __str__(self) -> str:
        return ", ".join(f"{setting}={value}" for setting, value in self.values.items()) or "as every trial"


def largest(space: Space, base: Config, *, workers: int = 1, device: str = "cpu") -> Largest:
    """The trial that needs the most memory: from the corner where all is largest, one setting after the other.

    Args:
        space: what moves.
        base: what it moves in.
        workers: that share a batch.
        device: "cpu" or "gpu".
    """
    conditions = {Condition.read(move.when).setting for move in space.search.values() if move.when}
    chosen = {setting: move.largest for setting, move in space.search.items()}
    config = space.pick(base, lambda setting, _: chosen[setting])
    best, num_estimates = estimate(config, workers=workers, device=device), 1
    for setting, move in space.search.items():
        for value in _candidates(setting, move, decides=setting in conditions):
            if value == chosen[setting] or num_estimates >= MOST_ESTIMATES:
                continue
            tried = {**chosen, setting: value}
            try:
                other = space.pick(base, lambda name, _, tried=tried: tried[name])  # type: ignore[misc]
                needs = estimate(other, workers=workers, device=device)
            except ValueError:
                continue  # settings that do not go together: such a trial is never run
            num_estimates += 1
            if needs.bytes_per_worker > best.bytes_per_worker:
                chosen, config, best = tried, other, needs
    leaves = flatten(config)
    sizes = [setting for setting, move in space.search.items() if _is_a_size(setting, move)]
    moved = {setting: leaves.get(setting, chosen[setting]) for setting in sizes}
    return Largest(config, moved, best)


def refuse_what_has_no_memory(trial: Largest, available: int, *, workers: int, device: str) -> None:
    """Refuses a space whose largest trial does not fit.

    Args:
        trial: the largest.
        available: bytes of a GPU, or of the machine whose memory the workers share.
        workers: of one trial.
        device: "cpu" or "gpu".

    Raises:
        InputError: naming the settings, and what would make it smaller.
    """
    share = available if device == "gpu" else available // workers
    if trial.estimate.bytes_per_worker > CERTAINLY * share:
        smaller = ", ".join(["train.batch_size", "data.size", *trial.values])
        precision = ", or train.precision=bfloat16" if trial.config.train.precision == "float32" else ""
        raise InputError(
            "E-MEMORY-01",
            gigabytes=gigabytes(share),
            gigabytes_2=gigabytes(trial.estimate.bytes_per_worker),
            trial=trial,
            smaller=smaller,
            precision=precision,
        )


def _candidates(setting: str, move: Move, *, decides: bool) -> tuple[Any, ...]:
    """Values of a setting among which the most memory is looked for; more of a number mostly needs more."""
    if decides:
        return move.some
    if setting.startswith("optim."):
        return ()
    numbers = all(isinstance(end, int | float) for end in move.ends)
    if setting in DEEPER_IS_NOT_LARGER:
        return (min(move.ends), max(move.ends)) if numbers else move.ends
    return () if numbers else move.ends


def _is_a_size(setting: str, move: Move) -> bool:
    return not setting.startswith(("optim.", "train.seed")) and not move.linear and not move.log
