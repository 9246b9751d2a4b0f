"""bfloat16 between float32: a network's arithmetic is made cheaper, what it takes and gives is not."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

NO_BFLOAT16 = "this GPU has no bfloat16: the networks compute in float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether it is computed there at all; a processor without instructions for it is slower, and right."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def in_precision(network: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """The network itself, its arithmetic in bfloat16 where that is asked for; what it returns is float32 always.

    The losses, and Gram matrices above all, need float32. A device without bfloat16 computes in float32.
    """
    if precision == "bfloat16" and has_bfloat16(device):

        def autocast_forward(self: nn.Module, *images: Tensor, **settings: Any) -> Any:
            with torch.autocast(device.type, torch.bfloat16):
                return mapped(type(self).forward(self, *images, **settings), Tensor.float)

        network.forward = MethodType(autocast_forward, network)  # bound, so that a copy computes with its own weights
    return network


def mapped(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a network gives, a tensor or a tuple of such, with every tensor changed."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    parts = [mapped(part, change) for part in outputs]
    return type(outputs)(*parts) if hasattr(outputs, "_fields") else tuple(parts)
