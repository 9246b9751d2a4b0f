"""Maps physical units linearly to the networks' range [-1, 1], and back."""

from typing import Any, TypeVar

import numpy as np

from medgan.tasks import Image

PERCENTILES = (0.5, 99.5)
"""These percentiles of a volume are its window if the modality has no units of its own."""

Values = TypeVar("Values", bound=Any)  # numpy array or torch tensor


def window_of(array: np.ndarray, image: Image) -> tuple[float, float]:
    """Returns the values that become -1 and 1: the image's own window, or the volume's percentiles.

    Args:
        array: the whole volume, at its own resolution.
    """
    if image.window is not None:
        return image.window
    low, high = (float(value) for value in np.percentile(array, PERCENTILES))
    return low, high if high > low else low + 1.0


def to_network(values: Values, window: tuple[float, float]) -> Values:
    """Maps `window` linearly to [-1, 1] and clips.

    Args:
        values: numpy array or torch tensor of any shape, in the window's unit.

    Returns:
        The same kind, shape and floating type, in [-1, 1].
    """
    low, high = window
    return ((values - low) * (2.0 / (high - low)) - 1.0).clip(-1.0, 1.0)


def from_network(values: Values, window: tuple[float, float]) -> Values:
    """Inverts `to_network` for values inside `window`; returns the same kind and shape, in the window's unit."""
    low, high = window
    return (values + 1.0) * ((high - low) / 2.0) + low
