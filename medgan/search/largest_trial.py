"""Finds the trial of a space that needs the most memory, and refuses a space whose largest trial does not fit."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from medgan.config import Config, flatten
from medgan.errors import InputError
from medgan.search.parameters import Condition, Move
from medgan.search.space import Space
from medgan.training.memory_estimate import Estimate, estimate, gigabytes

CERTAINLY = 1.5
"""A space is refused above this multiple of the available memory; below it, one real step decides."""
MOST_ESTIMATES = 32
DEEPER_IS_NOT_LARGER = ("generator.depth", "discriminator.patch")


@dataclass(frozen=True)
class Largest:
    """Describes the trial of a space that needs the most memory: configuration, varied sizes, and estimate."""

    config: Config
    values: dict[str, Any]
    estimate: Estimate

    def __str__(self) -> str:
        return ", ".join(f"{setting}={value}" for setting, value in self.values.items()) or "as every trial"


def largest(space: Space, base: Config, *, workers: int = 1, device: str = "cpu") -> Largest:
    """Searches for the trial that needs the most memory: from the largest values, one setting after the other.

    Args:
        workers: number of workers that share a batch.
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
            with suppress(ValueError):  # incompatible settings: the search never runs such a trial
                other = space.pick(base, lambda name, _, tried=tried: tried[name])  # type: ignore[misc]
                needs = estimate(other, workers=workers, device=device)
                num_estimates += 1
                if needs.bytes_per_worker > best.bytes_per_worker:
                    chosen, config, best = tried, other, needs
    values = chosen | flatten(config)
    moved = {setting: values[setting] for setting, move in space.search.items() if _is_a_size(setting, move)}
    return Largest(config, moved, best)


def refuse_what_has_no_memory(trial: Largest, available: int, *, workers: int, device: str) -> None:
    """Refuses a space whose largest trial does not fit.

    Args:
        available: bytes of a GPU, or of the machine whose memory the workers share.
        device: "cpu" or "gpu".

    Raises:
        InputError: the trial does not fit; the message names its settings, and those that reduce the memory.
    """
    share = available if device == "gpu" else available // workers
    if trial.estimate.bytes_per_worker > CERTAINLY * share:
        smaller = ", ".join(["train.batch_size", "data.size", *trial.values])
        precision = ", or set train.precision=bfloat16" if trial.config.train.precision == "float32" else ""
        raise InputError(
            "E-MEMORY-01",
            gigabytes=gigabytes(share),
            gigabytes_2=gigabytes(trial.estimate.bytes_per_worker),
            trial=trial,
            smaller=smaller,
            precision=precision,
        )


def _candidates(setting: str, move: Move, *, decides: bool) -> tuple[Any, ...]:
    """Returns the values of a setting to try; most numbers need none: their largest value needs the most memory."""
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
