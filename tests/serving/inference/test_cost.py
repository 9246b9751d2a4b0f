from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from medgan.inference.cost import measure_cost
from medgan.inference.translator import Translator

SLOW_S, HELD_BYTES = 0.01, 100_000_000


class Costly(nn.Module):
    """Stands for a network that takes time and memory."""

    divisor = 1

    def __init__(self, held: int = 0) -> None:
        super().__init__()
        self.weight, self.held = nn.Parameter(torch.zeros(1)), held

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        ballast = torch.ones(self.held, dtype=torch.uint8, device=source.device)
        end = time.perf_counter() + SLOW_S
        while time.perf_counter() < end:
            pass
        return source + self.weight * ballast[:0].sum()


def test_measure_cost_returns_latency_of_slice_and_peak_memory(translator_of: Callable[..., Translator]) -> None:
    light, heavy = measure_cost(translator_of(Costly())), measure_cost(translator_of(Costly(HELD_BYTES)))
    assert 1000 * SLOW_S <= light.latency_ms < 10_000 * SLOW_S
    assert heavy.memory_gb - light.memory_gb > 0.8 * HELD_BYTES / 1e9
    assert light.device == heavy.device


def test_measure_cost_does_not_count_earlier_memory(translator_of: Callable[..., Translator]) -> None:
    before = measure_cost(translator_of(Costly(HELD_BYTES)))
    after = measure_cost(translator_of(Costly()))
    assert before.memory_gb - after.memory_gb > 0.8 * HELD_BYTES / 1e9
