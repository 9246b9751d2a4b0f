"""Two processes that average their gradients compute what one process computes on the whole batch."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from medgan.config import Config, with_values
from medgan.distributed.ray_runtime import RayRuntime
from medgan.models.extractor import load_extractor
from medgan.presets.by_name import PRESETS
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.state import tensors
from medgan.training.step import train_step

STEPS, BATCH = 5, 4
SMALL = {
    "data.size": 16, "generator.base_channels": 2, "discriminator.base_channels": 2, "discriminator.patch": 16,
    "train.seed": 1, "optim.generator_lr": 1e-3, "optim.discriminator_lr": 1e-3,
}  # fmt: skip
METHODS = {
    "medgan": with_values(
        Config(),
        SMALL | {
            "generator.num_blocks": 2, "loss.lambda_l1": 1.0, "loss.lambda_perceptual": 20.0,
            "loss.lambda_style": 1e-2, "loss.lambda_content": 1e-2, "loss.style_blocks": [1, 2],
            "loss.content_blocks": [1, 2], "train.generator_steps": 3,
        },
    ),
    "cyclegan": with_values(PRESETS["cyclegan"](), SMALL | {"generator.num_blocks": 1}),
    "stages": with_values(
        Config(),
        SMALL | {
            "generator.num_blocks": 3, "loss.lambda_stages": 10.0, "loss.lambda_l1": 10.0, "optim.clip_norm": 0.1,
            "loss.adversarial": "wasserstein", "optim.clip_weights": 0.01, "train.discriminator_steps": 3,
            "train.ema_decay": 0.9,
        },
    ),
    "penalty": with_values(
        Config(),
        SMALL | {
            "loss.adversarial": "wasserstein", "loss.lambda_gradient_penalty": 10.0, "loss.lambda_l1": 1.0,
            "discriminator.norm": "none", "discriminator.spectral_norm": False,
        },
    ),
    "began": with_values(
        Config(),
        SMALL | {
            "data.size": 32, "loss.adversarial": "began", "discriminator.network": "autoencoder",
            "train.discriminator_steps": 2,
        },
    ),
    "vae": with_values(
        Config(),
        SMALL | {
            "generator.network": "variational", "loss.lambda_adversarial": 0.0, "loss.lambda_l1": 1.0,
            "loss.lambda_kl": 0.1,
        },
    ),
    "batch_norm": with_values(Config(), SMALL | {"generator.norm": "batch"}),
    "saving": with_values(
        Config(),
        SMALL | {
            "generator.num_blocks": 2, "generator.recompute": "blocks", "loss.lambda_perceptual": 20.0,
            "train.generator_steps": 3, "train.batch_size": 4, "train.accumulate": 2,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class GlooRuntime:
    """Like `medgan.distributed.ray_runtime.RayRuntime`, without Ray, in float64."""

    rank: int
    size: int
    device: torch.device = torch.device("cpu")

    def prepare(self, module: nn.Module) -> nn.Module:
        module = module.double()
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


def train(config, runtime):
    """Returns the losses of each step on the slices of this rank, and the state at the end."""
    torch.manual_seed(runtime.rank)
    state = build_state(config, runtime)
    if state.extractor is not None:
        state.extractor = load_extractor("vgg19", "random", 2).double()
    if state.average is not None:
        state.average.double()
    objective, updates = build_objective(config), updates_of(config)

    def batches():
        draw, size = torch.Generator().manual_seed(0), config.data.size
        while True:
            pair = torch.rand(2, BATCH, 1, size, size, generator=draw, dtype=torch.float64) * 2 - 1
            yield tuple(pair[:, runtime.rank :: runtime.size].unbind())

    stream = batches()
    rows = [train_step(state, objective, stream, updates) for _ in range(STEPS)]
    return [{name: float(value) for name, value in row.items()} for row in rows], state


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for name, config in METHODS.items():
        rows, state = train(config, GlooRuntime(rank, 2))
        Path(folder, f"{name}-rows-{rank}.json").write_text(json.dumps(rows))
        torch.save(tensors(state), Path(folder, f"{name}-{rank}.pt"))
        RayRuntime(rank, 2, torch.device("cpu")).agree(state.best_generator)
        torch.save(tensors(state), Path(folder, f"{name}-agreed-{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Returns a function: method -> losses of both ranks, their tensors, and their tensors after `agree`."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = torch.multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2, join=False)
    try:
        while not ranks.join(timeout=90):
            pass
    finally:
        for process in ranks.processes:
            process.kill()

    def read(name):
        rows = [json.loads((folder / f"{name}-rows-{rank}.json").read_text()) for rank in (0, 1)]
        before, agreed = (
            [torch.load(folder / f"{name}-{form}{rank}.pt", weights_only=True) for rank in (0, 1)]
            for form in ("", "agreed-")
        )
        return rows, before, agreed

    return read


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", ["medgan", "cyclegan", "stages", "began", "saving"])
def test_two_processes_train_like_one_process_on_same_global_batch(name, two_ranks):
    shares, saved, _ = two_ranks(name)
    rows, state = train(METHODS[name], GlooRuntime(0, 1))
    for alone, first, second in zip(rows, *shares, strict=True):
        assert first != second, "the ranks must see different slices"
        assert {name: (first[name] + second[name]) / 2 for name in first} == pytest.approx(alone, rel=1e-6)
    for name, value in tensors(state).items():
        assert torch.equal(saved[0][name], saved[1][name]), f"the ranks differ in {name}"
        torch.testing.assert_close(
            saved[0][name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("name", "term"), [("penalty", "discriminator_gradient_penalty"), ("vae", "kl")])
def test_ranks_stay_equal_with_term_that_each_rank_draws(name, term, two_ranks):
    """DDP averages the gradient of the KL term; the gradient penalty is computed outside of DDP."""
    shares, saved, _ = two_ranks(name)
    assert all(math.isfinite(value) for rows in shares for row in rows for value in row.values())
    assert [row[term] for row in shares[0]] != [row[term] for row in shares[1]]
    assert [name for name in saved[0] if not torch.equal(saved[0][name], saved[1][name])] == []


@pytest.mark.timeout(200)
def test_agree_averages_batch_norm_statistics_over_ranks(two_ranks):
    _, before, agreed = two_ranks("batch_norm")
    statistics = [name for name in before[0] if name.rpartition(".")[2] in ("running_mean", "running_var")]
    assert len(statistics) > 2
    for name in statistics:
        assert not torch.equal(before[0][name], before[1][name]), "each rank has seen other slices"
        assert torch.equal(agreed[0][name], agreed[1][name])
        torch.testing.assert_close(agreed[0][name], (before[0][name] + before[1][name]) / 2)
    for name in before[0].keys() - set(statistics):
        assert torch.equal(before[0][name], agreed[0][name]), f"{name} is no statistic"
        assert torch.equal(before[0][name], before[1][name])
