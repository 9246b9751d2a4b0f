"""Compares MedGAN's whole training step in the engine to the plain reference and to the peak of the device."""

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from medgan.benchmark.measurements import Measurement, Spread, spread_of
from medgan.benchmark.plain_method import PAPER, QUICK, UPDATES, Setting, build_objective, build_state, random_batches
from medgan.benchmark.reference import Reference
from medgan.benchmark.timing import described, in_turns, is_fast_in_bfloat16, rate, ratio, seconds
from medgan.training.autotune import MODES, Speed, fastest, step_s
from medgan.training.autotune import PLAIN as EAGER
from medgan.training.step import train_step

PLAIN = "plain eager"
PAIRS, EPOCHS = 1935, 200
"""Give the training pairs and epochs of the paper's PET to CT."""
LARGEST_BATCH = 64
MATRIX = {"cuda": 8192, "cpu": 1024}
PRODUCT = {"cuda": torch.bfloat16, "cpu": torch.float32}
STEADY_S = 60.0
ENGINE, CHANNELS_LAST = "engine, float32", Speed("channels_last")
PAPER_GB = 15.0
"""Limits the free memory from below: two trainings of the paper's network, 326.5 M parameters with activations."""

Step = Callable[[], object]
Options = Mapping[str, tuple[str, Speed]]
"""Maps a name to precision, memory format and compiler."""


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures the quick setting; in full also the paper's, where memory suffices, and on a GPU its whole schedule."""
    rows = compare(QUICK, device, limit_s=15.0 if quick else 90.0, wanted=">= 1.3x" if device.type == "cpu" else "")
    if quick:
        return rows
    if device.type == "cpu" and (free := free_gb()) < PAPER_GB:
        why = f"needs {PAPER_GB:.0f} GB of free memory for both; there are {free:.1f}"
        rows += [Measurement("step", "engine, float32", PAPER.text(), described(device), against=PLAIN, note=why)]
    else:
        tried = {ENGINE: options(device)[ENGINE]} if device.type == "cpu" else None  # memory for two, not for five
        rows += compare(PAPER, device, limit_s=60.0, wanted=">= 3x" if device.type == "cuda" else "", tried=tried)
    return rows + schedule(PAPER, device, steady_s=STEADY_S)


def free_gb() -> float:
    """Returns the memory that is free or can be freed, in GB."""
    found = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None, "every Linux has it"
    return int(found[1]) * 1024 / 1e9


def compare(
    setting: Setting, device: torch.device, *, limit_s: float, wanted: str = "", tried: Options | None = None
) -> list[Measurement]:
    """Compares the engine with each option in `tried` (default: the device's) to the reference, and to the peak."""
    row = partial(Measurement, part="step", settings=setting.text(), device=described(device))
    steps, refused = steps_of(setting, device, options(device) if tried is None else tried)
    times = in_turns({**steps, PLAIN: reference_step(setting, device)}, device=device, limit_s=limit_s)
    images = UPDATES.generator * setting.batch_size
    rows = [
        row(
            figure=name,
            unit="images/s",
            value=rate(images, taken),
            ratio=None if name == PLAIN else ratio(times[PLAIN], taken),
            against="" if name == PLAIN else PLAIN,
            wanted="" if name == PLAIN else wanted,
        )
        for name, taken in times.items()
    ]
    rows += [row(figure=name, against=PLAIN, note=reason) for name, reason in refused.items()]
    flops, best = counted(steps[ENGINE]), min(steps, key=lambda name: spread_of(times[name]).median)
    peak, word = measured_peak(device), str(PRODUCT[device.type]).removeprefix("torch.")
    share = rate(100 * flops / peak, times[best])
    note = f"{flops / 1e9:.4g} GFLOP a step; the peak is a {word} matrix product's, {peak / 1e9:.4g} GFLOP/s"
    return [*rows, row(figure=f"{best}: share of peak", unit="%", value=share, note=note)]


def options(device: torch.device) -> Options:
    """Returns the options that can make a step faster; bfloat16 where the device has instructions for it."""
    found = {ENGINE: ("float32", EAGER), f"{ENGINE}, channels_last": ("float32", CHANNELS_LAST)}
    if is_fast_in_bfloat16(device):
        modes = MODES if device.type == "cuda" else ()
        speeds = [EAGER, CHANNELS_LAST, *(replace(CHANNELS_LAST, compiled=mode) for mode in modes)]
        found |= {f"engine, bfloat16, {speed.text()}": ("bfloat16", speed) for speed in speeds}
    return found


def steps_of(setting: Setting, device: torch.device, tried: Options) -> tuple[dict[str, Step], dict[str, str]]:
    """Returns the engine's step with each option and, for an option that cannot be compiled, torch's error."""
    steps, refused = {}, {}
    for name, (precision, speed) in tried.items():
        step = engine_step(setting, device, precision=precision, speed=speed)
        try:
            if speed.compiled != "no":
                step_s(step, speed, device)
            steps[name] = step
        except RuntimeError as error:
            refused[name] = textwrap.shorten(f"{type(error).__name__}: {error}", 100)
    return steps, refused


def engine_step(setting: Setting, device: torch.device, *, precision: str = "float32", speed: Speed = EAGER) -> Step:
    """Returns a step of the engine on random batches, which can be called repeatedly."""
    state, objective = build_state(setting, device, precision=precision, speed=speed), build_objective(setting)
    batches = random_batches(setting, device)
    return lambda: train_step(state, objective, batches, UPDATES)


def reference_step(setting: Setting, device: torch.device) -> Step:
    """Returns a step of the reference on random batches, which can be called repeatedly."""
    reference, batches = Reference(setting, device), random_batches(setting, device)
    return lambda: reference.step(batches)


def counted(step: Step) -> int:
    """Counts the floating-point operations of the convolutions and products of a step, a multiply-add as two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def measured_peak(device: torch.device, rounds: int = 10) -> float:
    """Measures the floating-point operations a second of a large matrix product, the best of some rounds."""
    side = MATRIX[device.type]
    left, right = torch.randn(2, side, side, device=device).to(PRODUCT[device.type])
    left @ right
    return 2 * side**3 / min(seconds(lambda: left @ right, device) for _ in range(rounds))


def schedule(setting: Setting, device: torch.device, *, steady_s: float) -> list[Measurement]:
    """Extrapolates the minutes of the paper's whole training from a steady state, at batch 1 and at the best batch."""
    settings = f"{PAIRS} pairs, {EPOCHS} epochs, {setting.size} px, {setting.num_blocks} blocks"
    row = partial(Measurement, part="step", settings=settings, device=described(device), wanted="<= 30 min")
    if device.type != "cuda":
        return [row(figure="whole schedule", note="no CUDA device")]
    rows = []
    for batch in dict.fromkeys((1, best_batch(setting, device))):
        sized = replace(setting, batch_size=batch)
        speed = fastest(partial(_bfloat16_step, sized, device), device)
        value, note = minutes(sized, device, steady_s=steady_s, speed=speed), "; ".join(speed.lines())
        figure = f"engine, bfloat16, batch {batch}"
        rows.append(row(figure=figure, unit="min", value=value, note=f"from {steady_s:.0f} s of steady state; {note}"))
    return rows


def best_batch(setting: Setting, device: torch.device, *, limit_s: float = 2.0) -> int:
    """Returns the power of two with most images a second that fits into memory; each is tried for `limit_s` seconds."""
    rates: dict[int, float] = {}
    batch = 1
    while batch <= LARGEST_BATCH:
        try:
            step = engine_step(replace(setting, batch_size=batch), device, precision="bfloat16")
            times = in_turns({"step": step}, device=device, limit_s=limit_s)["step"]
        except torch.OutOfMemoryError:
            break
        rates[batch] = batch / spread_of(times).median
        batch *= 2
    return max(rates, key=lambda size: rates[size])


def minutes(setting: Setting, device: torch.device, *, steady_s: float, speed: Speed = EAGER) -> Spread:
    """Returns the minutes of the paper's whole training at this batch size, from `steady_s` seconds or more."""
    step = _bfloat16_step(setting, device, speed)
    times = in_turns({"step": step}, device=device, limit_s=steady_s, warmups=3)["step"]
    steps = PAIRS * EPOCHS / (UPDATES.generator * setting.batch_size)
    return spread_of([steps * taken / 60 for taken in times])


def _bfloat16_step(setting: Setting, device: torch.device, speed: Speed) -> Step:
    return engine_step(setting, device, precision="bfloat16", speed=speed)
