"""Two processes that average their gradients compute what one process computes on the whole batch."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from medgan.build.objective import build_objective
from medgan.build.training import build_state
from medgan.config import Config, with_values
from medgan.engine.state import tensors
from medgan.engine.steps import Updates, train_step
from medgan.models.extractor import load_extractor

STEPS, GENERATOR_STEPS, BATCH = 5, 3, 4
CONFIG = with_values(
    Config(),
    {
        "data.size": 16, "generator.base_channels": 2, "generator.num_blocks": 2, "discriminator.base_channels": 2,
        "loss.lambda_l1": 1.0, "loss.lambda_perceptual": 20.0, "loss.lambda_style": 1e-2, "loss.lambda_content": 1e-2,
        "loss.style_blocks": [1, 2], "loss.content_blocks": [1, 2], "train.seed": 1,
        "optim.generator_lr": 1e-3, "optim.discriminator_lr": 1e-3,
    },
)  # fmt: skip


@dataclass(frozen=True)
class GlooRuntime:
    """Like `medgan.distributed.runtime.RayRuntime`, without Ray, in float64."""

    rank: int
    size: int
    device: torch.device = torch.device("cpu")

    def prepare(self, module: nn.Module) -> nn.Module:
        module = module.double()
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


def train(runtime):
    """Losses of each step on this rank's share, and every tensor of the state at the end."""
    state = build_state(CONFIG, runtime)
    state = replace(state, extractor=load_extractor("vgg19", "random", 2).double())
    objective = build_objective(CONFIG)

    def batches():
        draw = torch.Generator().manual_seed(0)
        while True:
            pair = torch.rand(2, BATCH, 1, 16, 16, generator=draw, dtype=torch.float64) * 2 - 1
            yield tuple(pair[:, runtime.rank :: runtime.size].unbind())

    stream = batches()
    rows = [train_step(state, objective, stream, updates=Updates(generator=GENERATOR_STEPS)) for _ in range(STEPS)]
    return [{name: float(value) for name, value in row.items()} for row in rows], tensors(state)


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    rows, state = train(GlooRuntime(rank, 2))
    Path(folder, f"rows-{rank}.json").write_text(json.dumps(rows))
    torch.save(state, Path(folder, f"state-{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(200)
def test_two_processes_train_like_one_on_the_same_global_batch(tmp_path):
    ranks = torch.multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2, join=False)
    rows, state = train(GlooRuntime(0, 1))
    try:
        while not ranks.join(timeout=90):
            pass
    finally:
        for process in ranks.processes:
            process.kill()
    shares = [json.loads((tmp_path / f"rows-{rank}.json").read_text()) for rank in (0, 1)]
    for alone, first, second in zip(rows, *shares, strict=True):
        assert first != second, "the ranks must see different slices"
        assert {name: (first[name] + second[name]) / 2 for name in first} == pytest.approx(alone, rel=1e-6)
    saved = [torch.load(tmp_path / f"state-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in state.items():
        assert torch.equal(saved[0][name], saved[1][name]), f"the ranks drifted apart in {name}"
        torch.testing.assert_close(
            saved[0][name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
