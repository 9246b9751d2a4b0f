"""The stopwatch measures the parts of a step separately."""

from types import SimpleNamespace

import pytest
import torch

from medgan.benchmark import step_profile as parts

pytestmark = pytest.mark.unit


def test_stopwatch_times_part_without_nested_parts(monkeypatch):
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 100.0, 101.0])
    monkeypatch.setattr(parts, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    watch = parts.Stopwatch(torch.device("cpu"))
    watch.enter("losses")  # 0
    watch.enter("discriminator")  # 1
    watch.leave()  # 3
    watch.enter("discriminator")  # 6
    watch.leave()  # 10
    watch.leave()  # 15
    watch.enter("losses")  # 100: the time before belongs to no part
    watch.leave()  # 101
    assert watch.seconds == {"losses": 1.0 + 3.0 + 5.0 + 1.0, "discriminator": 2.0 + 4.0}
