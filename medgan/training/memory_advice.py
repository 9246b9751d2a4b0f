"""Advises which settings to lower after an out-of-memory error, and to which values."""

from collections.abc import Iterator
from typing import Any

from medgan.config import Config, with_values
from medgan.errors import InputError
from medgan.training.build_networks import refuse_misfit
from medgan.training.memory_estimate import estimate, gigabytes

CLEARLY = 0.9
"""Limits the advice: a change must lower the needed memory below this share."""


def what_needs_less(config: Config, *, workers: int = 1, device: str = "cpu") -> str:
    """Returns a message: memory was out, the estimated need, and each setting that clearly lowers it, with its value.

    Args:
        device: "cpu" or "gpu".
    """
    needed = estimate(config, workers=workers, device=device).bytes_per_worker
    changes = []
    for values, remark in _changes(config, device):
        try:
            changed = with_values(config, values)
            refuse_misfit(changed, slices=_share(changed, workers))
        except InputError:
            continue  # settings that contradict each other
        less = estimate(changed, workers=workers, device=device).bytes_per_worker
        if less < CLEARLY * needed:
            ((path, value),) = values.items()
            changes.append(f"{path}={value}{remark} ({gigabytes(less)})")
    advice = (
        f"what takes less: {'; '.join(changes)}" if changes else "no setting alone lowers that; other processes might"
    )
    return f"{that_memory_was_out(config)}, about {gigabytes(needed)} a process; {advice}"


def that_memory_was_out(config: Config) -> str:
    """Returns the message that memory was out, with the batch size and the image size."""
    return f"out of memory with train.batch_size={config.train.batch_size} at {config.data.size} px"


def _changes(config: Config, device: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields changes of a single setting, each with a remark on its cost."""
    train, generator = config.train, config.generator
    if train.batch_size > 1:
        yield {"train.batch_size": train.batch_size // 2}, ""
        yield {"train.accumulate": 2 * train.accumulate}, f", the same batch in {2 * train.accumulate} parts"
    if generator.network == "casnet" and generator.recompute == "none":
        yield {"generator.recompute": "blocks"}, ", the same result in a third more time"
    if train.precision == "float32" and device == "gpu":
        yield {"train.precision": "bfloat16"}, ""
    if generator.base_channels > 1:
        yield {"generator.base_channels": generator.base_channels // 2}, ", a smaller network"


def _share(config: Config, workers: int) -> int:
    """Returns the number of slices that each process trains on."""
    if config.train.batch_size % workers:
        raise InputError("E-MEMORY-02", workers=workers, batch_size=config.train.batch_size)
    return config.train.batch_size // workers
