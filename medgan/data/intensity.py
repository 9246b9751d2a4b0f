"""The linear map between physical units and the networks' range [-1, 1], and its inverse."""

from __future__ import annotations

from typing import Any, TypeVar

Values = TypeVar("Values", bound=Any)  # numpy array or torch tensor


def to_network(values: Values, window: tuple[float, float]) -> Values:
    """Map `window` linearly to [-1, 1] and clip.

    Args:
        values: numpy array or torch tensor of any shape, in the window's unit.
        window: (low, high), the values that become -1 and 1.

    Returns:
        The same kind, shape and floating type, in [-1, 1].
    """
    low, high = window
    return ((values - low) * (2.0 / (high - low)) - 1.0).clip(-1.0, 1.0)


def from_network(values: Values, window: tuple[float, float]) -> Values:
    """The inverse of `to_network` for values inside `window`; same kind and shape, in the window's unit."""
    low, high = window
    return (values + 1.0) * ((high - low) / 2.0) + low
