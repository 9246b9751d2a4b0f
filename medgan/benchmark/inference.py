"""Translating slices: one alone, and in batches, against the bare network in a loop."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from medgan.benchmark.method import PAPER, QUICK, Setting, build_generator, in_precision
from medgan.benchmark.table import Row, spread_of
from medgan.benchmark.timing import described, in_turns, rate, ratio

BLOCKS, SLICES, BATCH = 6, 16, 16
LOOP = "the bare network, slice by slice"


def measure(*, quick: bool, device: torch.device) -> list[Row]:
    """Six blocks; at 256 px in full, smaller when quick."""
    setting = QUICK if quick else PAPER
    return compare(setting, device, limit_s=5.0 if quick else 60.0)


def compare(setting: Setting, device: torch.device, *, limit_s: float) -> list[Row]:
    """A slice alone and a batch, without a graph, against a loop in float32."""
    network = network_for(setting, device)
    fast = in_precision(network_for(setting, device), "bfloat16", device) if device.type == "cuda" else network
    alone = torch.rand(1, 1, setting.size, setting.size, device=device) * 2 - 1
    many = alone.repeat(SLICES, 1, 1, 1)
    times = in_turns(
        {
            "alone": lambda: translate(fast, alone),
            "bare": lambda: looped(network, alone),
            "batched": lambda: translate(fast, many),
            "loop": lambda: looped(network, many),
        },
        device=device,
        limit_s=limit_s,
    )
    precision = "bfloat16" if device.type == "cuda" else "float32"
    wanted = ("<= 4 ms", ">= 1000/s") if device.type == "cuda" else ("", "")
    settings = f"{setting.size} px, {BLOCKS} blocks, base {setting.base_channels}, {precision}"
    row = partial(Row, part="inference", settings=settings, device=described(device))
    return [
        row(
            figure="a slice alone",
            unit="ms",
            value=spread_of([1000 * one for one in times["alone"]]),
            ratio=ratio(times["bare"], times["alone"]),
            against=LOOP,
            wanted=wanted[0],
        ),
        row(
            figure=f"batches of {BATCH}",
            unit="slices/s",
            value=rate(SLICES, times["batched"]),
            ratio=ratio(times["loop"], times["batched"]),
            against=LOOP,
            wanted=wanted[1],
        ),
        row(figure=LOOP, unit="slices/s", value=rate(SLICES, times["loop"])),
    ]


def network_for(setting: Setting, device: torch.device) -> nn.Module:
    """The generator with six blocks, ready to translate."""
    six = Setting(**{**vars(setting), "num_blocks": BLOCKS})
    return build_generator(six).to(device).eval()


@torch.inference_mode()
def translate(network: nn.Module, slices: Tensor) -> Tensor:
    """As `medgan translate` passes slices through a network: (B, 1, H, W) -> (B, 1, H, W)."""
    return torch.cat([network(batch) for batch in slices.split(BATCH)])


@torch.no_grad()
def looped(network: nn.Module, slices: Tensor) -> Tensor:
    """The same, a slice at a time."""
    return torch.cat([network(one) for one in slices.split(1)])
