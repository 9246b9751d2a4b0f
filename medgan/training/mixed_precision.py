"""Computes networks in bfloat16, with inputs and outputs in float32."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

NO_BFLOAT16 = "this GPU has no bfloat16: the networks compute in float32"


def has_bfloat16(device: torch.device) -> bool:
    """Tells whether the device computes bfloat16 at all; a CPU without bfloat16 instructions is slower, but correct."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def in_precision(network: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """Returns the same network, which computes in `precision` and always returns float32.

    The losses need float32, above all Gram matrices. A device without bfloat16 computes in float32.
    """
    if precision == "bfloat16" and has_bfloat16(device):

        def autocast_forward(self: nn.Module, *images: Tensor, **settings: Any) -> Any:
            with torch.autocast(device.type, torch.bfloat16):
                return mapped(type(self).forward(self, *images, **settings), Tensor.float)

        network.forward = MethodType(autocast_forward, network)  # bound: a copy computes with its own weights
    return network


def mapped(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Applies `change` to every tensor of a network's output, a tensor or a tuple of tensors."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    parts = [mapped(part, change) for part in outputs]
    return type(outputs)(*parts) if hasattr(outputs, "_fields") else tuple(parts)
