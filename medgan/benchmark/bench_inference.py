"""Measures the translation of slices, alone and in batches, against the bare network in a loop."""

from functools import partial

import torch
from torch import Tensor, nn

from medgan.benchmark.measurements import Measurement, spread_of
from medgan.benchmark.plain_method import PAPER, QUICK, Setting, build_generator
from medgan.benchmark.timing import described, in_turns, is_fast_in_bfloat16, rate, ratio
from medgan.training.autotune import FORMATS, Speed, fitted
from medgan.training.mixed_precision import in_precision

BLOCKS, SLICES, BATCH = 6, 16, 16
LOOP = "the bare network, slice by slice"


def measure(*, quick: bool, device: torch.device) -> list[Measurement]:
    """Measures six blocks: at 256 px in full, smaller when quick."""
    setting = QUICK if quick else PAPER
    return compare(setting, device, limit_s=5.0 if quick else 60.0)


def compare(setting: Setting, device: torch.device, *, limit_s: float) -> list[Measurement]:
    """Compares a slice alone and a batch, without gradients, with each option, to a loop in contiguous float32."""
    precisions = ("float32", "bfloat16") if is_fast_in_bfloat16(device) else ("float32",)
    networks = {
        f"{precision}, {layout}": network_for(setting, device, precision=precision, layout=layout)
        for precision in precisions
        for layout in FORMATS
    }
    bare = network_for(setting, device)
    alone = torch.rand(1, 1, setting.size, setting.size, device=device) * 2 - 1
    many = alone.repeat(SLICES, 1, 1, 1)
    functions = {"bare": partial(looped, bare, alone), LOOP: partial(looped, bare, many)}
    for name, network in networks.items():
        functions |= {f"alone {name}": partial(translate, network, alone)}
        functions |= {f"batched {name}": partial(translate, network, many)}
    times = in_turns(functions, device=device, limit_s=limit_s)
    wanted = ("<= 4 ms", ">= 1000/s") if device.type == "cuda" else ("", "")
    settings = f"{setting.size} px, {BLOCKS} blocks, base {setting.base_channels}"
    row = partial(Measurement, part="inference", settings=settings, device=described(device))
    rows = []
    for name in networks:
        one, batch = times[f"alone {name}"], times[f"batched {name}"]
        rows += [
            row(
                figure=f"a slice alone, {name}",
                unit="ms",
                value=spread_of([1000 * taken for taken in one]),
                ratio=ratio(times["bare"], one),
                against=LOOP,
                wanted=wanted[0],
            ),
            row(
                figure=f"batches of {BATCH}, {name}",
                unit="slices/s",
                value=rate(SLICES, batch),
                ratio=ratio(times[LOOP], batch),
                against=LOOP,
                wanted=wanted[1],
            ),
        ]
    return [*rows, row(figure=LOOP, unit="slices/s", value=rate(SLICES, times[LOOP]))]


def network_for(
    setting: Setting, device: torch.device, *, precision: str = "float32", layout: str = "contiguous"
) -> nn.Module:
    """Builds the generator with six blocks, ready to translate."""
    six = Setting(**{**vars(setting), "num_blocks": BLOCKS})
    return fitted(in_precision(build_generator(six).to(device), precision, device), Speed(layout)).eval()


@torch.inference_mode()
def translate(network: nn.Module, slices: Tensor) -> Tensor:
    """Maps (B, 1, H, W) to (B, 1, H, W) in batches, as `medgan translate` does."""
    return torch.cat([network(batch) for batch in slices.split(BATCH)])


@torch.no_grad()
def looped(network: nn.Module, slices: Tensor) -> Tensor:
    """Maps (B, 1, H, W) to (B, 1, H, W), a slice at a time."""
    return torch.cat([network(one) for one in slices.split(1)])
