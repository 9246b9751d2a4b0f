import time

import pytest
import torch

from medgan.benchmark.timing import described, in_turns, rate, ratio, seconds

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


def test_in_turns_alternates_order_of_functions():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = in_turns(functions, device=CPU, limit_s=0.0, warmups=2)
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"
    assert {name: len(rounds) for name, rounds in times.items()} == {"a": 3, "b": 3}


def test_in_turns_adds_rounds_until_time_limit():
    began = time.perf_counter()
    rounds = in_turns({"a": lambda: None}, device=CPU, limit_s=0.2)["a"]
    assert 0.2 <= time.perf_counter() - began < 2
    assert len(rounds) > 3


def test_seconds_measures_one_call():
    assert 0 <= seconds(lambda: None, CPU) < 0.1


def test_rate_and_ratio_are_taken_round_by_round():
    assert rate(10, [1.0, 2.0, 5.0]) == (5.0, 3.5, 7.5)
    assert ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == pytest.approx((2.0, 2.0, 2.5))


def test_described_names_cpu_with_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert described(CPU) == "cpu, 2 threads"
        torch.set_num_threads(1)
        assert described(CPU) == "cpu, 1 thread"
    finally:
        torch.set_num_threads(before)
